"""The bounds of the wire and of messages, against peers that say whatever they like."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ouzel.sandbox import kernel_messages as messages
from ouzel.sandbox.kernel_messages import BadMessage, Message
from ouzel.sandbox.kernel_wire import MESSAGE_BYTES, TooLong, Wire, WireBroken

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB"
KEY = b"key"


@asynccontextmanager
async def peer(said: bytes) -> AsyncIterator[Wire]:
    """Connected to a peer that says this and closes."""

    loop = asyncio.get_running_loop()

    async def say() -> None:
        with suppress(OSError):
            await loop.sock_sendall(theirs, said)
            theirs.shutdown(socket.SHUT_WR)

    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        path = Path(folder) / "s"
        listening.bind(str(path))
        listening.listen()
        listening.setblocking(False)
        accepting = asyncio.create_task(loop.sock_accept(listening))
        connecting = asyncio.create_task(Wire.connect(path, "DEALER"))
        theirs, _ = await accepting
        saying = asyncio.create_task(say())
        try:
            wire = await connecting
            yield wire
            wire.close()
            wire.close()
        finally:
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)
            theirs.close()
            # The transport lets go of its socket at the loop's next turn.
            await asyncio.sleep(0.01)


async def test_messages_come_whole() -> None:
    long = os.urandom(70_000)
    said = b"\x01\x01a" + b"\x03" + len(long).to_bytes(8, "big") + long + b"\x00\x00" + b"\x00\x01z"
    async with peer(GREETING + READY + said) as wire:
        assert await wire.receive() == [b"a", long, b""]
        assert await wire.receive() == [b"z"]
        with pytest.raises(WireBroken, match="closed"):
            await wire.receive()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"\x01\x00" * 1000, "too many parts"),
        (b"\x04\x00" * 1000, "command"),
        (b"\x08\x00", "unknown flags"),
        (b"\x00\x05abc", "closed"),
        (b"\x02" + (1 << 63).to_bytes(8, "big") + bytes(1000), "closed"),
    ],
)
async def test_broken_bounds_end_the_connection(said: bytes, why: str) -> None:
    async with peer(GREETING + READY + said) as wire:
        with pytest.raises(WireBroken, match=why):
            await wire.receive()


async def test_too_long_a_message_is_skipped() -> None:
    half = MESSAGE_BYTES // 2 + 1
    frame = half.to_bytes(8, "big") + bytes(half)
    async with peer(GREETING + READY + b"\x03" + frame + b"\x02" + frame + b"\x00\x01z") as wire:
        assert await wire.receive() == TooLong(2 * half)
        assert await wire.receive() == [b"z"]


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9, GREETING, GREETING + b"\x00\x01x", bytes(500)],
)
async def test_who_does_not_shake_hands_is_refused(said: bytes) -> None:
    with pytest.raises(WireBroken):
        async with peer(said):
            pass


def test_only_signed_messages_are_read() -> None:
    identity, frames = messages.request("stream", {"name": "stdout", "text": "hi"}, KEY)
    read = messages.parse([b"topic", *frames], KEY)
    assert (read.kind, read.parent) == ("stream", "")
    assert identity
    for place in range(1, len(frames)):
        changed = [*frames]
        changed[place] += b" "
        with pytest.raises(BadMessage):
            messages.parse(changed, KEY)
    with pytest.raises(BadMessage):
        messages.parse(frames, b"another")


def test_junk_is_refused_and_never_more_than_that() -> None:
    draw = random.Random(4)
    values = [b"", b"{", b"[]", b"5", b"null", b"{}", b"\xff", b"[" * 10_000, b'{"a":' * 9_000]
    values += [b'{"msg_type":5}', b'{"msg_type":"stream","msg_id":[]}', b'{"data":{"image/png":1}}']
    values += [b'{"text":"\\ud800"}', b'{"traceback":[1,{}],"ename":[]}', b'{"execution_state":7}']
    read = 0
    for _ in range(3000):
        parts = [draw.choice(values) for _ in range(4)]
        signed = messages._signature(parts, KEY)
        try:
            message = messages.parse([messages.DELIMITER, signed, *parts], KEY)
        except BadMessage:
            message = Message(draw.choice(["stream", "execute_result", "x"]), "", parts[3])
        for reader in (messages.read_reply, messages.read_shown, messages.read_state):
            try:
                reader(message)
                read += 1
            except BadMessage:
                continue
    assert read > 100


def test_text_is_made_plain() -> None:
    assert messages.plain("\x1b[1;31mred\x1b[0m\x1b]0;title\x07 \x00tab\t\r\n") == "red tab\t\r\n"
    shown = messages.read_shown(
        Message("stream", "", b'{"text": "half \\ud83d, whole \\ud83d\\ude00"}')
    )
    assert shown is not None
    assert shown.text == "half ?, whole \U0001f600"
    reply = messages.read_reply(Message("execute_reply", "", b'{"status": "error"}'))
    assert (reply.ok, reply.error) == (False, "Error")


def test_pictures_are_pictures_and_small_enough() -> None:
    import base64

    png = messages.PNG + bytes(1000)
    wrapped = base64.encodebytes(png).decode()
    assert messages.picture(wrapped, 2000) == png
    assert messages.picture(wrapped, 1000) is None
    assert messages.picture(base64.b64encode(b"GIF89a").decode(), 1000) is None
    assert messages.picture("é", 1000) is None
