"""One cell while it runs: what the kernel says of it, cut to its limits, until it is over.

Everything that comes is taken at once and never waits for whoever reads the events: what is kept is
bounded by the limits, not by the reader's pace. Who stops a cell, and how, this file does not know.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final, Literal, cast

from ouzel.sandbox.kernel_messages import (
    Message,
    Reply,
    picture,
    read_reply,
    read_shown,
    read_state,
)
from ouzel.sandbox.outputs import KernelPicture, KernelText
from ouzel.sandbox.watch import CellLimits

FLOOD: Final = 32
"""So many times the text that is taken may come before the cell is interrupted for it."""
OTHER_HALF: Final = 2.0
"""Seconds between a kernel's answer and its becoming idle, which come together; after longer, one
of them was not the kernel's own."""

_SHOWING = ("stream", "execute_result", "display_data")


class Cell:
    """What has come of one cell.

    Args:
        identity: of its request; messages that name another one are not its own.
        limits: what it may say.

    Attributes:
        reply: the kernel's, once there.
        cut: output was left out.
        trouble: why it must be stopped, once there is a reason; `alarm` is set then.
        over: set when nothing more will come.
    """

    def __init__(self, identity: str, limits: CellLimits) -> None:
        self.identity = identity
        self.reply: Reply | None = None
        self.cut = False
        self.trouble = ""
        self.alarm = asyncio.Event()
        self.over = asyncio.Event()
        self.began = time.monotonic()
        self.seconds = 0.0
        self._limits = limits
        self._idle = False
        self._timer: asyncio.TimerHandle | None = None
        self._room = limits.output_bytes
        self._picture_room = limits.picture_bytes
        self._pictures = 0
        self._heard_bytes = 0
        self._heard = 0
        self._events: deque[KernelText | KernelPicture] = deque()
        self._changed = asyncio.Event()

    async def next(self) -> KernelText | KernelPicture | None:
        """What it says next, as it comes; None once it is over."""
        while not self._events and not self.over.is_set():
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft() if self._events else None

    def stop(self, trouble: str) -> None:
        """Ask for its end; the first reason stands."""
        self.trouble = self.trouble or trouble
        self.alarm.set()

    def end(self) -> None:
        """Nothing more will come."""
        if not self.over.is_set():
            self.seconds = time.monotonic() - self.began
            self.over.set()
        if self._timer is not None:
            self._timer.cancel()
        self._changed.set()

    def hear(self, message: Message) -> None:
        """Take what came on iopub. Raises BadMessage."""
        self._count(message.size)
        if message.parent != self.identity:
            return
        if message.kind == "status":
            self._idle = self._idle or read_state(message) == "idle"
            self._look()
        elif message.kind in _SHOWING:
            self._show(message)

    def miss(self, size: int) -> None:
        """A message of so many bytes came that was too long to be taken."""
        self.cut = True
        self._count(size)

    def hear_reply(self, message: Message) -> None:
        """Take what came on shell. Raises BadMessage."""
        if message.kind == "execute_reply" and message.parent == self.identity:
            self.reply = self.reply or read_reply(message)
            self._look()

    def _count(self, size: int) -> None:
        self._heard += 1
        self._heard_bytes += size
        most = FLOOD * self._limits.output_bytes + 2 * self._limits.picture_bytes
        if self._heard > self._limits.messages or self._heard_bytes > most:
            self.stop("it wrote without end")

    def _look(self) -> None:
        """A cell is over when the kernel has answered and said that it is idle."""
        if self.reply is not None and self._idle:
            self.end()
        elif self._timer is None and (self.reply is not None or self._idle):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(OTHER_HALF, self.stop, "it spoke in its kernel's name")

    def _show(self, message: Message) -> None:
        if self._room <= 0 and message.kind == "stream":
            self.cut = True
            return
        shown = read_shown(message)
        if shown is None:
            return
        if shown.png:
            self._take_picture(shown.png)
        elif shown.text:
            self._take_text(shown.stream, shown.text)

    def _take_text(self, stream: str, text: str) -> None:
        raw = text.encode()
        if len(raw) > self._room:
            self.cut = True
            text = raw[: self._room].decode("utf-8", "ignore")
        self._room -= len(raw)
        if text:
            self._emit(KernelText(cast("Literal['stdout', 'stderr', 'result']", stream), text))

    def _take_picture(self, png: str) -> None:
        room = self._picture_room if self._pictures < self._limits.pictures else 0
        data = picture(png, room)
        if data is None:
            self.cut = True
            return
        self._pictures += 1
        self._picture_room -= len(data)
        self._emit(KernelPicture(data))

    def _emit(self, event: KernelText | KernelPicture) -> None:
        self._events.append(event)
        self._changed.set()
