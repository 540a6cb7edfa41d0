"""What the tests of files, uploads and containers share.

Checks of every body against the official SDK's types, forms made by hand, and the real rooms of
files and containers below a test's folder.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openai.types import FileDeleted, FileObject, Upload
from openai.types.container_create_response import ContainerCreateResponse
from openai.types.containers.file_create_response import FileCreateResponse
from openai.types.uploads import UploadPart
from pydantic import TypeAdapter

from ouzel.sandbox.container_settings import ContainerSettings
from ouzel.sandbox.containers import SandboxContainers
from ouzel.sandbox.environment import Interpreter
from ouzel.sandbox.jail import Jail, find_jail
from ouzel.store import FileLimits, SqlFiles, open_files, open_store

KINDS: dict[str, Any] = {
    "file": FileObject,
    "upload": Upload,
    "upload.part": UploadPart,
    "container": ContainerCreateResponse,
    "container.file": FileCreateResponse,
}


def check(kind: str, body: bytes | dict[str, Any]) -> dict[str, Any]:
    """Hold an object strictly against the SDK's type: no wrong type, no field missing or too many.

    Where the SDK's types do not say what the reference says, it is checked here.
    """
    parsed = json.loads(body) if isinstance(body, bytes) else body
    assert parsed["object"] == kind
    known = dict(parsed)
    if kind == "file" and known["purpose"] == "evals":
        known["purpose"] = "user_data"  # asked for as `evals`, but missing in the type of answers
    TypeAdapter(KINDS[kind]).validate_json(json.dumps(known), strict=True, extra="forbid")
    if kind == "file":
        assert "expires_at" not in parsed or type(parsed["expires_at"]) is int
    if kind == "upload":
        assert (parsed["file"] is not None) == (parsed["status"] == "completed")
        if parsed["file"] is not None:
            check("file", parsed["file"])
    if kind == "container":
        assert parsed["status"] in ("running", "expired")
        assert set(parsed) >= {"expires_after", "last_active_at", "memory_limit", "network_policy"}
    if kind == "container.file":
        assert parsed["path"].startswith("/mnt/data/")
        assert parsed["source"] in ("user", "assistant")
    return parsed


def check_page(kind: str, body: bytes) -> dict[str, Any]:
    """A page of a list, with every object in it."""
    page = json.loads(body)
    assert set(page) == {"object", "data", "first_id", "last_id", "has_more"}
    assert page["object"] == "list"
    ids = [check(kind, each)["id"] for each in page["data"]]
    assert len(ids) == len(set(ids))
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else ("", ""))
    assert type(page["has_more"]) is bool
    return page


def check_deleted(body: bytes, object_id: str, kind: str) -> None:
    """What deleting is answered with; the SDK has a type for files only."""
    parsed = json.loads(body)
    assert parsed == {"id": object_id, "object": kind, "deleted": True}
    if kind == "file":
        TypeAdapter(FileDeleted).validate_json(body, strict=True, extra="forbid")


# Forms.

BOUNDARY = "--limit"


@dataclass(frozen=True)
class Field:
    """One part of a form, written as it is told."""

    name: str
    value: bytes | str
    filename: str | None = None
    headers: tuple[str, ...] = ()


def form(*fields: Field, boundary: str = BOUNDARY, end: bool = True) -> bytes:
    """A form's body."""
    made = b""
    for each in fields:
        named = f'; filename="{each.filename}"' if each.filename is not None else ""
        lines = [f'content-disposition: form-data; name="{each.name}"{named}', *each.headers]
        value = each.value.encode() if isinstance(each.value, str) else each.value
        head = "\r\n".join([f"--{boundary}", *lines, "", ""]).encode("utf-8", "surrogateescape")
        made += head + value + b"\r\n"
    return made + (f"--{boundary}--\r\n".encode() if end else b"")


FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


# Rooms.


@asynccontextmanager
async def real_files(
    home: Path,
    limits: FileLimits | None = None,
    now: Callable[[], float] = time.time,
) -> AsyncIterator[SqlFiles]:
    """The store's files, below a folder."""
    store = open_store(home / "files.db")
    files = open_files(store, home / "files", limits, now=now)
    try:
        yield files
    finally:
        await files.close()
        await store.close()


async def real_jail(home: Path) -> Jail:
    """How code is kept in on this machine; found once."""
    if not _JAILS:
        scratch = home / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        _JAILS.append(await asyncio.to_thread(find_jail, scratch))
    return _JAILS[0]


_JAILS: list[Jail] = []
NOT_STARTED = Interpreter(Path(sys.executable), Path(sys.prefix), ())
"""For tests in which nothing is run."""


def real_containers(
    home: Path,
    files: SqlFiles,
    jail: Jail,
    interpreter: Interpreter = NOT_STARTED,
    **settings: Any,
) -> SandboxContainers:
    """The sandbox's containers, to be started and closed; nothing is kept warm."""
    bounds = {"warm": 0, "disk_mb": 1, "memory_mb": 4096, "disk_floor_mb": 1} | settings
    return SandboxContainers(home, jail, interpreter, files, ContainerSettings(**bounds))


def work_folder(rooms: SandboxContainers, container_id: str) -> Path:
    """Where a container's files lie."""
    return rooms._records[container_id].folder(rooms._registry).work


async def leave(rooms: SandboxContainers, container_id: str, path: str, data: bytes) -> str:
    """Put a file there as code does, behind everybody's back; its id."""
    whole = work_folder(rooms, container_id) / path
    whole.parent.mkdir(parents=True, exist_ok=True)
    whole.write_bytes(data)
    owner = rooms._records[container_id].info.owner
    found = await rooms.files(container_id, owner)
    return next(file.id for file in found if file.path == path)


def neglect(rooms: SandboxContainers, container_id: str) -> None:
    """As if nobody had used it for a day."""
    record = rooms._records[container_id]
    idle = replace(record.info, last_active_at=time.time() - 24 * 3600)
    record.meta = replace(record.meta, info=idle)
