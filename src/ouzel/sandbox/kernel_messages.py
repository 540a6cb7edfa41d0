"""Jupyter's messages, as much of them as cells need: signed, taken apart, and made plain.

Whoever reads here reads what hostile code wrote: every field may be missing, of another kind, or
junk. What is no message raises BadMessage; what is one comes out as plain text without control
characters, or as the bytes of a picture. Connections and limits this file does not know.

Written after "Messaging in Jupyter", version 5.3 (jupyter-client.readthedocs.io).
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

DELIMITER: Final = b"<IDS|MSG>"
PNG: Final = b"\x89PNG\r\n\x1a\n"

TRACEBACK_CHARS: Final = 64 * 2**10
"""Most characters of a traceback that are taken, from its end."""
ERROR_CHARS: Final = 2000
"""Most characters of an exception's last line that are taken."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class BadMessage(Exception):
    """What came is no message of a kernel."""


class _Header(msgspec.Struct):
    msg_type: str
    msg_id: str = ""


class _Parent(msgspec.Struct):
    msg_id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message from a kernel.

    Args:
        kind: its `msg_type`.
        parent: id of the request that it belongs to; empty for none.
        content: not yet looked into.
    """

    kind: str
    parent: str
    content: bytes

    @property
    def size(self) -> int:
        """Bytes of its content."""
        return len(self.content)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a kernel says of a cell that has ended.

    Args:
        error: the exception's last line; empty if there was none.
        traceback: all of it.
    """

    ok: bool
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a kernel wants to show: text, or a picture in its stead.

    Args:
        stream: `stdout`, `stderr`, or `result` for the value of a cell's last line.
        png: base64 of a picture, unchecked.
    """

    stream: str
    text: str = ""
    png: str = ""


def request(kind: str, content: dict[str, Any], key: bytes) -> tuple[str, list[bytes]]:
    """A request's id, and its frames."""
    identity = secrets.token_hex(16)
    header = {
        "msg_id": identity,
        "msg_type": kind,
        "session": "ouzel",
        "username": "ouzel",
        "date": datetime.now(UTC).isoformat(),
        "version": "5.3",
    }
    parts = [msgspec.json.encode(part) for part in (header, {}, {}, content)]
    return identity, [DELIMITER, _signature(parts, key), *parts]


def execute_request(code: str, key: bytes) -> tuple[str, list[bytes]]:
    """A request to run a cell; code with half a character in it is mended."""
    content = {
        "code": code.encode("utf-8", "replace").decode(),
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        # Requests are never queued, so that there is nothing to drop after an error.
        "stop_on_error": False,
    }
    return request("execute_request", content, key)


def parse(frames: Sequence[bytes], key: bytes) -> Message:
    """A message out of its frames. Raises BadMessage."""
    try:
        start = list(frames).index(DELIMITER) + 1
    except ValueError:
        raise BadMessage("no delimiter") from None
    if len(frames) < start + 5:
        raise BadMessage("too few parts")
    signature, header, parent, metadata, content = frames[start : start + 5]
    if not hmac.compare_digest(signature, _signature([header, parent, metadata, content], key)):
        raise BadMessage("a wrong signature")
    try:
        named = msgspec.json.decode(header, type=_Header)
        asked = msgspec.json.decode(parent, type=_Parent)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BadMessage("a header that is none") from None
    return Message(named.msg_type, asked.msg_id, content)


def read_state(message: Message) -> str:
    """Of a `status`: `busy`, `idle` or anything. Raises BadMessage."""
    return _text(_content(message).get("execution_state"))


def read_reply(message: Message) -> Reply:
    """Of an `execute_reply`. Raises BadMessage."""
    content = _content(message)
    if content.get("status") == "ok":
        return Reply(ok=True)
    name, value = _text(content.get("ename")), _text(content.get("evalue"))
    lines = content.get("traceback")
    lines = lines if isinstance(lines, list) else []
    whole = "\n".join(_text(line).rstrip("\n") for line in lines)[-TRACEBACK_CHARS:]
    error = plain(f"{name}: {value}" if value else name)[:ERROR_CHARS]
    return Reply(ok=False, error=error or "Error", traceback=plain(whole))


def read_shown(message: Message) -> Shown | None:
    """Of a `stream`, `execute_result` or `display_data`; None if it shows nothing that is taken.

    Raises BadMessage.
    """
    content = _content(message)
    if message.kind == "stream":
        stream = "stderr" if content.get("name") == "stderr" else "stdout"
        return Shown(stream, plain(_text(content.get("text"))))
    data = content.get("data")
    if not isinstance(data, dict):
        raise BadMessage("data that is none")
    stream = "result" if message.kind == "execute_result" else "stdout"
    if isinstance(png := data.get("image/png"), str):
        return Shown(stream, png=png)
    text = plain(_text(data.get("text/plain")))
    if not text:
        return None
    # Each `display(...)` is a line of its own, as it is on a screen.
    return Shown(stream, text if message.kind == "execute_result" else f"{text}\n")


def picture(png: str, most: int) -> bytes | None:
    """The picture's bytes, if it begins as a PNG does and has no more than `most`."""
    if len(png) > most * 4 // 3 + most // 32 + 64:  # base64, with its line ends
        return None
    try:
        data = binascii.a2b_base64(png)
    except (binascii.Error, ValueError):
        return None
    return data if len(data) <= most and data.startswith(PNG) else None


def plain(text: str) -> str:
    """Text without colours and control characters."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def _content(message: Message) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(message.content)
    except (msgspec.DecodeError, ValueError, RecursionError):
        # Code may print halves of characters; what is left of them must not end the cell.
        try:
            found = json.loads(message.content.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise BadMessage("content that is none") from None
    if not isinstance(found, dict):
        raise BadMessage("content that is none")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _signature(parts: Sequence[bytes], key: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), hashlib.sha256).hex().encode()
