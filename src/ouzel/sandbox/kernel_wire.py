"""ZMTP 3.0 over a Unix socket, as much of it as a kernel's client needs, with bounds on all of it.

The process at the other end runs hostile code. So what it may make us hold is bounded before it is
read: the size of a frame, the frames of a message, and the bytes of all of them. ZeroMQ's own
library bounds a frame only, and takes frames of one message without end; it also connects again by
itself, to whatever lies at the path then. Here a connection is made once, before code has run.

Written after the protocol's specification, RFC 23/ZMTP 3.0 (rfc.zeromq.org/spec/23), mechanism
NULL. What the messages mean, this file does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

MESSAGE_BYTES: Final = 16 * 2**20
"""Most bytes of one message: a picture of 8 MiB in base64, and its text beside it."""
MESSAGE_PARTS: Final = 32
"""Most frames of one message; Jupyter's have six or seven."""
COMMAND_BYTES: Final = 4096
"""Most bytes of a command; those of the handshake have under a hundred."""
SIP: Final = 65536
"""Bytes that are read at a time of what is dropped."""
SEND_WITHIN: Final = 5.0
"""Seconds in which the other end must take what is sent to it."""

_MORE, _LONG, _COMMAND = 1, 2, 4
_GREETING: Final = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


class WireBroken(Exception):
    """The connection is of no use any more: it was closed, or what came over it is not ZMTP."""


@dataclass(frozen=True, slots=True)
class TooLong:
    """A message of more than `MESSAGE_BYTES` came and was dropped; `size` is in bytes."""

    size: int


class Wire:
    """One connection to a socket of the kernel's.

    One task receives and one sends at a time. Made by `connect`.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path, kind: Literal["DEALER", "SUB"]) -> Wire:
        """Connect and shake hands; a SUB is subscribed to everything.

        Raises:
            OSError: nobody listens there (yet).
            WireBroken: who listens there does not speak ZMTP 3.
        """
        reader, writer = await asyncio.open_unix_connection(str(path))
        wire = cls(reader, writer)
        try:
            await wire._greet(kind)
            if kind == "SUB":
                await wire.send([b"\x01"])
        except BaseException:
            wire.close()
            raise
        return wire

    async def send(self, parts: Sequence[bytes]) -> None:
        """Send a message. Raises WireBroken, also if the other end does not take it in time."""
        last = len(parts) - 1
        self._write(
            b"".join(_frame(part, _MORE if i < last else 0) for i, part in enumerate(parts))
        )
        await self._drain()

    async def receive(self) -> list[bytes] | TooLong:
        """The next message. Cancelling this in the middle of one makes the connection useless.

        Raises:
            WireBroken: it ended, or what came is not ZMTP, or no message of a kernel's.
        """
        parts: list[bytes] = []
        size = 0
        for _ in range(MESSAGE_PARTS):
            flags, length = await self._read_head()
            if flags & _COMMAND:
                # None is due after the handshake, and to read them would never end.
                raise WireBroken("a command that was not asked for")
            size += length
            if size > MESSAGE_BYTES:
                await self._skip(length)
            else:
                parts.append(await self._read(length))
            if not flags & _MORE:
                return parts if size <= MESSAGE_BYTES else TooLong(size)
        raise WireBroken("a message has too many parts")

    def close(self) -> None:
        """Let go of it at once; may be called twice."""
        self._writer.transport.abort()

    async def _greet(self, kind: str) -> None:
        self._write(_GREETING)
        theirs = await self._read(64)
        if theirs[0] != 0xFF or theirs[9] != 0x7F or theirs[10] < 3 or theirs[12:16] != b"NULL":
            raise WireBroken("the greeting is not of ZMTP 3")
        name = kind.encode()
        ready = b"\x05READY\x0bSocket-Type" + len(name).to_bytes(4, "big") + name
        self._write(_frame(ready, _COMMAND))
        flags, length = await self._read_head()
        if not flags & _COMMAND or length > COMMAND_BYTES:
            raise WireBroken("the handshake is none")
        if not (await self._read(length)).startswith(b"\x05READY"):
            raise WireBroken("the handshake was refused")
        await self._drain()

    async def _read_head(self) -> tuple[int, int]:
        """Flags and length of the next frame."""
        (flags,) = await self._read(1)
        if flags & ~(_MORE | _LONG | _COMMAND):
            raise WireBroken("a frame has unknown flags")
        return flags, int.from_bytes(await self._read(8 if flags & _LONG else 1), "big")

    async def _skip(self, length: int) -> None:
        while length:
            length -= len(await self._read(min(length, SIP)))

    async def _read(self, size: int) -> bytes:
        try:
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise WireBroken("the connection was closed") from error

    def _write(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise WireBroken("the connection was closed")
        self._writer.write(data)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(SEND_WITHIN):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise WireBroken("nothing is taken any more") from error


def _frame(body: bytes, flags: int) -> bytes:
    if len(body) > 255:
        return bytes([flags | _LONG]) + len(body).to_bytes(8, "big") + body
    return bytes([flags, len(body)]) + body
