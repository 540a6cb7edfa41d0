"""Writes files, uploads, containers and pages of them as OpenAI's API has them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ouzel.core.files import (
    WORK,
    ContainerFile,
    ContainerInfo,
    FileInfo,
    UploadInfo,
    UploadPartInfo,
)


def file(info: FileInfo) -> dict[str, Any]:
    """A `file` object; `expires_at` is there only if it expires, since the types have no null."""
    written = {
        "id": info.id,
        "object": "file",
        "bytes": info.size,
        "created_at": int(info.created_at),
        "filename": info.name,
        "purpose": info.purpose,
        # Out of date in the API and still required; a file that is kept is ready for everything.
        "status": "processed",
    }
    if info.expires_at is not None:
        written["expires_at"] = int(info.expires_at)
    return written


def upload(info: UploadInfo) -> dict[str, Any]:
    """An `upload` object, with the file that it became."""
    return {
        "id": info.id,
        "object": "upload",
        "bytes": info.size,
        "created_at": int(info.created_at),
        "filename": info.name,
        "purpose": info.purpose,
        "status": info.status,
        "expires_at": int(info.expires_at),
        "file": None if info.file is None else file(info.file),
    }


def upload_part(info: UploadPartInfo) -> dict[str, Any]:
    """An `upload.part` object."""
    return {
        "id": info.id,
        "object": "upload.part",
        "created_at": int(info.created_at),
        "upload_id": info.upload_id,
    }


def container(info: ContainerInfo) -> dict[str, Any]:
    """A `container` object."""
    return {
        "id": info.id,
        "object": "container",
        "created_at": int(info.created_at),
        "status": info.status,
        "expires_after": {"anchor": "last_active_at", "minutes": info.spec.idle_minutes},
        "last_active_at": int(info.last_active_at),
        "memory_limit": info.spec.memory,
        "name": info.spec.name,
        "network_policy": {"type": "disabled"},
    }


def container_file(info: ContainerFile) -> dict[str, Any]:
    """A `container.file` object; its path is the one that code in the container sees."""
    return {
        "id": info.id,
        "object": "container.file",
        "created_at": int(info.created_at),
        "bytes": info.size,
        "container_id": info.container_id,
        "path": f"{WORK}/{info.path}",
        "source": info.source,
    }


def deleted(object_id: str, kind: str) -> dict[str, Any]:
    """What deleting an object is answered with; `kind` is the name of the answer's type."""
    return {"id": object_id, "object": kind, "deleted": True}


def page(data: Sequence[dict[str, Any]], more: bool) -> dict[str, Any]:
    """A page of a list of objects. An empty page has no ids, but the types ask for strings."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else "",
        "last_id": data[-1]["id"] if data else "",
        "has_more": more,
    }
