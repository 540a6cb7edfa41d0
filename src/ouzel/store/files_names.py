"""What a file may be called: as the client called it, made harmless.

Such a name is shown, sent in headers, and given to the copy in a container's work folder; it is
never part of a path of ours. This file does not know files.
"""

from __future__ import annotations

import re

from ouzel.core.errors import RequestError

NAME_BYTES = 255
"""Longest name that common file systems take, in bytes of UTF-8."""

_ENDING_BYTES = 32
"""A longer ending is none, and is cut like the rest."""

_BAD = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, ends of lines, marks that turn the direction in which the rest is read (with
them `fdp.exe` looks like `exe.pdf`), and halves of surrogate pairs, which are no characters."""


def clean_name(name: str, param: str) -> str:
    """The name without folders, of at most NAME_BYTES; characters that could harm become `_`.

    Args:
        name: as it came, from any system.
        param: where it came from, for the error.

    Raises:
        RequestError: nothing is left of it.
    """
    last = _BAD.sub("_", re.split(r"[/\\]", name)[-1]).strip()
    if last in {"", ".", ".."}:
        raise RequestError(
            "The file needs a name that does not end in a folder.",
            param=param,
            code="invalid_value",
        )
    return _shortened(last)


def storable(text: str) -> bool:
    """Whether a database can look for it: not with half of a surrogate pair, which no id holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shortened(name: str) -> str:
    """Cut in the middle, so that what it ends in stays."""
    whole = name.encode()
    if len(whole) <= NAME_BYTES:
        return name
    stem, dot, ending = name.rpartition(".")
    tail = (dot + ending).encode()
    if not stem or len(tail) > _ENDING_BYTES:
        return whole[:NAME_BYTES].decode(errors="ignore").strip()
    return stem.encode()[: NAME_BYTES - len(tail)].decode(errors="ignore") + tail.decode()
