"""What a client may set for `code_interpreter`, and what becomes of it for one request. Pure.

The API's form is read strictly; ours travels in its place from `prepare` to each call.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from ouzel.core.errors import RequestError
from ouzel.core.files import MemoryLimit

MOST_FILES: Final = 50
"""Ids in `file_ids`, as the API's reference limits them."""

_GIGABYTES: Final = {"1g": 1, "4g": 4, "16g": 16, "64g": 64}


class Network(msgspec.Struct, forbid_unknown_fields=True):
    """Whether the code may reach other machines: it may not, whatever is asked."""

    type: str
    allowed_domains: list[str] | None = None
    domain_secrets: list[msgspec.Raw] | None = None


class Auto(msgspec.Struct, forbid_unknown_fields=True):
    """A container that the server chooses or makes."""

    type: Literal["auto"]
    file_ids: list[str] | None = None
    memory_limit: MemoryLimit | None = None
    network_policy: Network | None = None


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The tool as a request offers it."""

    container: str | Auto
    allowed_callers: list[str] | None = None


class Mount(msgspec.Struct):
    """A file of the client's that the code finds in its folder by this name."""

    file_id: str
    name: str


class Ready(msgspec.Struct):
    """What a call needs to know.

    Args:
        container: its id; it may not be there yet.
        memory: how much it gets when it is made.
        mounts: files that have to be in it.
        columns: of tables in it, by the file's name.
    """

    container: str
    memory: MemoryLimit = "1g"
    mounts: list[Mount] = []
    columns: dict[str, list[str]] = {}


def read(settings: str, memory_mb: int | None) -> Asked:
    """A client's settings.

    Args:
        memory_mb: the most that a container gets here; None if that is not known.

    Raises:
        RequestError: with the place within the tool.
    """
    try:
        asked = msgspec.json.decode(settings, type=Asked)
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from error
    if asked.allowed_callers not in (None, ["direct"]):
        raise _unsupported("allowed_callers", "'direct' is the only caller")
    auto = asked.container
    if isinstance(auto, str):
        if not auto:
            raise RequestError("Empty id.", param="container", code="empty_string")
        return asked
    if len(auto.file_ids or ()) > MOST_FILES:
        raise RequestError(
            f"Too many files: at most {MOST_FILES}.",
            param="container.file_ids",
            code="array_above_max_length",
        )
    if auto.network_policy is not None and auto.network_policy.type != "disabled":
        raise _unsupported("container.network_policy.type", "code has no network here")
    most = auto.memory_limit
    if most and memory_mb is not None and _GIGABYTES[most] * 1024 > memory_mb:
        raise _unsupported("container.memory_limit", f"code gets up to {memory_mb} MiB here")
    return asked


def _wrong(found: str) -> RequestError:
    """What msgspec says, with the place that it names."""
    said, _, place = found.partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    field = re.search(r"(?:required|unknown) field `([^`]*)`", said)
    if field:
        place = f"{place}.{field[1]}" if place else field[1]
    missing = "required field" in said
    unknown = "unknown field" in said
    code = (
        "missing_required_parameter"
        if missing
        else "unknown_parameter"
        if unknown
        else "invalid_type"
        if said.startswith("Expected")
        else "invalid_value"
    )
    return RequestError(f"Invalid settings: {said}.", param=place or None, code=code)


def _unsupported(param: str, why: str) -> RequestError:
    return RequestError(f"Unsupported value: {why}.", param=param, code="unsupported_value")


def write(ready: Ready) -> str:
    """As it travels."""
    return msgspec.json.encode(ready).decode()


def ready(settings: str) -> Ready:
    """What `write` wrote."""
    return msgspec.json.decode(settings, type=Ready)
