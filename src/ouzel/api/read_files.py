"""Reads what clients say of files, uploads and containers: bodies, fields of forms, queries.

Strict as all readers: nothing unknown, nothing of a wrong type. Bytes of files it never sees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from ouzel.api.read_common import ID
from ouzel.api.read_errors import (
    Path,
    invalid,
    literal,
    unknown,
    unsupported_value,
    wrong_type,
    wrong_value,
)
from ouzel.api.read_multipart import plain_name
from ouzel.api.reading import (
    Reader,
    anything,
    array,
    choice,
    integer,
    not_yet,
    record,
    string,
    tagged,
)
from ouzel.core.files import ContainerSpec, MemoryLimit, Purpose

PURPOSES: Final = get_args(Purpose)

_ANCHOR, _SECONDS_FIELD = "expires_after[anchor]", "expires_after[seconds]"
FILE_FIELDS: Final = ("purpose", _ANCHOR, _SECONDS_FIELD)
"""Fields of the form of POST /v1/files besides the file."""

MOST_UPLOAD: Final = 8 * 1024**3
"""Bytes of an upload, as the API reference limits them; this server's own limit may be lower."""

MOST_PART: Final = 64 * 1024**2
"""Bytes of a part of an upload, as the API reference limits them."""

BATCH_EXPIRES: Final = 30 * 24 * 3600.0
"""Seconds that files for batches are kept if the client does not say, as the API reference has
it; all others are kept until they are deleted."""

_MOST_IDS = 10_000
_MOST_FILES = 100
_MOST_MINUTES = 24 * 60
"""Parts of an upload, files for a container, and minutes that it may idle. Ours to choose."""

_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(\s*;[ -~]*)?", re.ASCII)
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_SECONDS = re.compile(r"[0-9]{1,18}")

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class FileWanted:
    """What a file shall be; `expires_after` in seconds, None for never."""

    purpose: str
    expires_after: float | None


@dataclass(frozen=True, slots=True)
class UploadWanted:
    """What an upload shall become; `size` in bytes."""

    name: str
    size: int
    media_type: str
    file: FileWanted


@dataclass(frozen=True, slots=True)
class Page:
    """Which page of a list is wanted; `only` is the filter's value, if the list has a filter."""

    after: str | None
    limit: int
    order: Literal["asc", "desc"]
    only: str | None = None


# Rows.


def _filename(value: Any, path: Path) -> Any:
    return plain_name(string(4096, shortest=1)(value, path), path)


def _media_type(value: Any, path: Path) -> Any:
    if not _MEDIA_TYPE.fullmatch(string(255, shortest=1)(value, path)):
        raise invalid(path, "expected a media type such as 'text/csv'")
    return value


def _md5(value: Any, path: Path) -> Any:
    if not _MD5.fullmatch(string(255)(value, path)):
        raise invalid(path, "expected an MD5 sum, 32 hexadecimal digits")
    return value.lower()


def _a_list(value: Any, path: Path) -> Any:
    if type(value) is not list:
        raise wrong_type(path, "an array", value)
    return value


def _no_network(value: Any, path: Path) -> Any:
    raise unsupported_value((*path, "type"), value["type"], ("disabled",))


_purpose = choice(*PURPOSES)
_listed = choice(*PURPOSES, "batch_output")  # this server makes those, too
_expires_after = record(
    {"anchor": choice("created_at"), "seconds": integer(3600, 2_592_000)}, ("anchor", "seconds")
)
_FILE: dict[str, Reader] = {"purpose": _purpose, "expires_after": _expires_after}
_file = record(_FILE, ("purpose",))
_upload = record(
    {
        **_FILE,
        "filename": _filename,
        "bytes": integer(1, MOST_UPLOAD),
        "mime_type": _media_type,
    },
    ("filename", "purpose", "bytes", "mime_type"),
)
_complete = record({"part_ids": array(ID, _MOST_IDS, shortest=1), "md5": _md5}, ("part_ids",))
_container = record(
    {
        "name": string(256),
        "file_ids": array(ID, _MOST_FILES),
        "expires_after": record(
            {"anchor": choice("last_active_at"), "minutes": integer(1, _MOST_MINUTES)},
            ("anchor", "minutes"),
        ),
        "memory_limit": choice(*get_args(MemoryLimit)),
        "network_policy": tagged(
            "type",
            {"disabled": record({"type": anything}), "allowlist": _no_network},
        ),
        "skills": not_yet([], of=_a_list),
    },
    ("name",),
)
_container_file = record({"file_id": ID}, ("file_id",))


# Bodies and forms.


def read_file(fields: Mapping[str, str]) -> FileWanted:
    """Read the fields of the form of POST /v1/files. Raises RequestError."""
    body: dict[str, Any] = {}
    for name, value in fields.items():
        outer, _, inner = name.removesuffix("]").partition("[")
        if not inner:
            body[outer] = value
            continue
        # A form knows only text; what is no number is told as the text that it is.
        number = inner == "seconds" and _SECONDS.fullmatch(value)
        body.setdefault(outer, {})[inner] = int(value) if number else value
    return _wanted(_file(body, ()))


def is_whole(fields: Mapping[str, str]) -> bool:
    """Whether these may be all the fields there are; the rest, if any, comes after the file."""
    return "purpose" in fields and (_ANCHOR in fields) == (_SECONDS_FIELD in fields)


def read_upload(body: dict[str, Any]) -> UploadWanted:
    """Read the body of POST /v1/uploads. Raises RequestError."""
    found = _upload(body, ())
    return UploadWanted(found["filename"], found["bytes"], found["mime_type"], _wanted(found))


def _wanted(found: dict[str, Any]) -> FileWanted:
    purpose = found["purpose"]
    if "expires_after" in found:
        return FileWanted(purpose, float(found["expires_after"]["seconds"]))
    return FileWanted(purpose, BATCH_EXPIRES if purpose == "batch" else None)


def read_complete(body: dict[str, Any]) -> tuple[tuple[str, ...], str | None]:
    """Read the ids of the parts and the MD5 sum, in lower case, of POST .../complete.

    Raises RequestError.
    """
    found = _complete(body, ())
    return found["part_ids"], found.get("md5")


def read_container(body: dict[str, Any]) -> ContainerSpec:
    """Read the body of POST /v1/containers. Raises RequestError."""
    found = _container(body, ())
    plain = ContainerSpec(name=found["name"])
    return ContainerSpec(
        name=plain.name,
        idle_minutes=found.get("expires_after", {}).get("minutes", plain.idle_minutes),
        memory=found.get("memory_limit", plain.memory),
        file_ids=found.get("file_ids", ()),
    )


def read_container_file(body: Mapping[str, Any]) -> str:
    """Read which file POST .../files shall copy. Raises RequestError."""
    file_id: str = _container_file(dict(body), ())["file_id"]
    return file_id


# Queries.


def read_files_page(query: Query) -> Page:
    """Read the query of GET /v1/files. Raises RequestError."""
    page = _page(query, 10_000, 10_000, "purpose")
    if page.only is not None:
        _listed(page.only, ("purpose",))
    return page


def read_containers_page(query: Query) -> Page:
    """Read the query of GET /v1/containers. Raises RequestError."""
    return _page(query, 100, 20, "name")


def read_container_files_page(query: Query) -> Page:
    """Read the query of GET /v1/containers/{id}/files. Raises RequestError."""
    return _page(query, 100, 20, None)


def _page(query: Query, most: int, usual: int, only: str | None) -> Page:
    values: dict[str, str] = {}
    for name, value in query:
        if name not in ("after", "limit", "order") and name != only:
            raise unknown((name,))
        if name in values:
            raise invalid((name,), "it was given more than once")
        if len(value) > 256 or "\0" in value:
            raise invalid((name,), "expected at most 256 characters, none of them NUL")
        values[name] = value
    limit = values.get("limit", str(usual))
    # Five digits at most, so that no number is too long for `int`.
    if not (limit.isascii() and limit.isdigit() and len(limit) < 6 and 1 <= int(limit) <= most):
        problem = f"expected an integer from 1 to {most}, but got {literal(limit)}"
        raise invalid(("limit",), problem)
    order = values.get("order", "desc")
    if order not in ("asc", "desc"):
        raise wrong_value(("order",), order, ("asc", "desc"))
    way: Literal["asc", "desc"] = "asc" if order == "asc" else "desc"
    return Page(values.get("after"), int(limit), way, values.get(only) if only else None)
