"""What a cell says and how it ended, as the kernel's client tells it to the rest of the room.

Nouns only; how they come out of a kernel's messages, `kernel_messages.py` knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Ending = Literal["ok", "error", "interrupted", "died"]


@dataclass(frozen=True, slots=True)
class KernelText:
    """Code has written something; `result` is the value of its last line."""

    stream: Literal["stdout", "stderr", "result"]
    text: str


@dataclass(frozen=True, slots=True)
class KernelPicture:
    """Code has shown a picture.

    Args:
        data: a PNG file as the code gave it; that it can be opened is not known.
    """

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KernelEnd:
    """How a cell ended; the last of its events.

    Args:
        status: `ok`; `error`: the code raised; `interrupted`: it was stopped, variables are kept;
            `died`: the kernel is gone.
        error: the exception's last line (`ValueError: ...`), or why it was stopped or died, as a
            clause without a full stop.
        traceback: the whole traceback without colours.
        seconds: how long it ran.
        cut: output was more than is taken, and its rest was left out.
        removed: files of the work folder that were removed because there was no room for them,
            `/` between folders.
    """

    status: Ending
    error: str = ""
    traceback: str = ""
    seconds: float = 0.0
    cut: bool = False
    removed: tuple[str, ...] = ()


KernelEvent = KernelText | KernelPicture | KernelEnd
