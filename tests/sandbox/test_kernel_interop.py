"""Our client of kernels against the libraries that kernels are written with: jupyter_client's
messages both ways, and real sockets of ZeroMQ."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio
from jupyter_client.session import Session

from ouzel.sandbox import kernel_messages as messages
from ouzel.sandbox.kernel_messages import BadMessage
from ouzel.sandbox.kernel_wire import MESSAGE_BYTES, TooLong, Wire, WireBroken

KEY = b"5f1d0c7e"
TEXTS = ["", "print(1)\n", "Grüße, 你好, \U0001f600\u200d\u2028\x00\x1b[1m", "x" * 3_000_000]


def session(key: bytes = KEY) -> Session:
    return Session(key=key, signature_scheme="hmac-sha256", username="kernel")


def read(frames: list[bytes], key: bytes = KEY) -> dict[str, Any]:
    """As jupyter_client reads it; raises ValueError for a wrong signature."""
    theirs = session(key)
    _, parts = theirs.feed_identities([b"who", *frames])
    return theirs.deserialize(parts)


@pytest.mark.parametrize("text", TEXTS, ids=["empty", "plain", "unicode", "big"])
def test_theirs_reads_our_requests(text: str) -> None:
    identity, frames = messages.execute_request(text, KEY)
    found = read(frames)
    assert (found["msg_type"], found["msg_id"]) == ("execute_request", identity)
    assert found["content"]["code"] == text
    assert found["content"]["allow_stdin"] is False
    assert (found["parent_header"], found["metadata"], found["buffers"]) == ({}, {}, [])
    assert found["header"]["version"] == "5.3"
    assert found["header"]["date"].tzinfo is not None, "it was read as a time"
    with pytest.raises(ValueError, match="Invalid Signature"):
        read(frames, b"another")


@pytest.mark.parametrize("kind", ["interrupt_request", "kernel_info_request", "shutdown_request"])
def test_theirs_reads_each_kind_of_request(kind: str) -> None:
    content = {"restart": False, "deep": [1, None, {"ü": 0.5}]}
    identity, frames = messages.request(kind, content, KEY)
    found = read(frames)
    assert (found["msg_type"], found["msg_id"], found["content"]) == (kind, identity, content)


def test_theirs_refuses_a_request_that_was_seen_before_and_one_that_was_changed() -> None:
    theirs = session()
    _, frames = messages.execute_request("1", KEY)
    theirs.deserialize(frames[1:])
    with pytest.raises(ValueError, match="Duplicate"):
        theirs.deserialize(frames[1:])
    for place in range(2, len(frames)):
        changed = [*frames]
        changed[place] += b" "
        with pytest.raises(ValueError, match="Invalid Signature"):
            read(changed)


def said(theirs: Session, kind: str, content: dict[str, Any], **more: Any) -> list[bytes]:
    """What a kernel sends."""
    return theirs.serialize(theirs.msg(kind, content, **more), ident=[f"kernel.{kind}".encode()])


@pytest.mark.parametrize("text", TEXTS, ids=["empty", "plain", "unicode", "big"])
def test_ours_reads_their_messages(text: str) -> None:
    theirs = session()
    request, frames = messages.execute_request("1", KEY)
    parent = theirs.deserialize(frames[1:])["header"]
    shown = {"data": {"text/plain": text}, "metadata": {}, "transient": {}}
    for kind, content in {
        "stream": {"name": "stderr", "text": text},
        "execute_result": {**shown, "execution_count": 1},
        "display_data": shown,
    }.items():
        found = messages.parse(said(theirs, kind, content, parent=parent), KEY)
        assert (found.kind, found.parent) == (kind, request)
        one = messages.read_shown(found)
        # What is displayed gets a line of its own.
        end = "\n" if kind == "display_data" and text else ""
        assert (one.text if one else "") == messages.plain(text) + end
    failed = {"status": "error", "ename": "KeyError", "evalue": text, "traceback": [text, "end"]}
    found = messages.parse(said(theirs, "execute_reply", failed, parent=parent), KEY)
    reply = messages.read_reply(found)
    assert (found.parent, reply.ok) == (request, False)
    assert reply.error.startswith("KeyError")
    assert reply.traceback.endswith("end")


def test_ours_reads_states_and_answers_and_who_is_not_asked() -> None:
    theirs = session()
    state = messages.parse(said(theirs, "status", {"execution_state": "idle"}), KEY)
    assert (state.kind, state.parent, messages.read_state(state)) == ("status", "", "idle")
    reply = messages.parse(said(theirs, "execute_reply", {"status": "ok"}), KEY)
    assert messages.read_reply(reply).ok
    with_buffers = [*theirs.serialize(theirs.msg("comm_msg", {})), b"buffer" * 1000]
    assert messages.parse(with_buffers, KEY).kind == "comm_msg"


def test_ours_refuses_another_key_and_what_was_changed() -> None:
    frames = said(session(b"another"), "stream", {"name": "stdout", "text": "hi"})
    with pytest.raises(BadMessage, match="signature"):
        messages.parse(frames, KEY)
    with pytest.raises(BadMessage, match="signature"):
        messages.parse(said(session(b""), "stream", {}), KEY)
    frames = said(session(), "stream", {"name": "stdout", "text": "hi"})
    for place in range(2, len(frames)):
        changed = [*frames]
        changed[place] += b" "
        with pytest.raises(BadMessage):
            messages.parse(changed, KEY)


@contextmanager
def bound(kind: int) -> Iterator[tuple[zmq.asyncio.Socket, Path]]:
    """A socket of ZeroMQ's own, and where it listens."""
    with tempfile.TemporaryDirectory() as folder, zmq.asyncio.Context() as context:
        path = Path(folder) / "s"
        with context.socket(kind) as socket:
            socket.linger = 0
            socket.bind(f"ipc://{path}")
            yield socket, path


@asynccontextmanager
async def connected(path: Path, kind: Any) -> AsyncIterator[Wire]:
    async with asyncio.timeout(30):
        wire = await Wire.connect(path, kind)
        try:
            yield wire
        finally:
            wire.close()
            # The transport lets go of its socket at the loop's next turn.
            await asyncio.sleep(0.01)


SIZES = [0, 1, 255, 256, 65_535, 65_536, 5_000_000]


async def test_a_router_takes_our_messages_and_we_take_its_answers() -> None:
    with bound(zmq.ROUTER) as (router, path):
        async with connected(path, "DEALER") as one, connected(path, "DEALER") as other:
            parts = [os.urandom(size) for size in SIZES]
            for wire in (one, other):
                await wire.send(parts)
                who, *got = await router.recv_multipart()
                assert got == parts
                await router.send_multipart([who, *got])
                assert await wire.receive() == parts
            for number in range(200):
                await one.send([b"%d" % number, b""])
            for number in range(200):
                assert (await router.recv_multipart())[1:] == [b"%d" % number, b""]


async def test_a_publisher_is_heard_and_its_own_signatures_hold() -> None:
    theirs = session()
    # As a kernel's: whoever has subscribed is told so.
    with bound(zmq.XPUB) as (publisher, path):
        async with connected(path, "SUB") as wire:
            assert await publisher.recv() == b"\x01", "subscribed to everything"
            for number in range(200):
                content = {"name": "stdout", "text": f"{number} \u00e4"}
                await publisher.send_multipart(said(theirs, "stream", content))
            for number in range(200):
                frames = await wire.receive()
                assert not isinstance(frames, TooLong)
                shown = messages.read_shown(messages.parse(frames, KEY))
                assert shown is not None
                assert shown.text == f"{number} \u00e4"


async def test_too_much_of_a_publisher_is_dropped_and_the_next_is_heard() -> None:
    with bound(zmq.XPUB) as (publisher, path):
        async with connected(path, "SUB") as wire:
            await publisher.recv()
            await publisher.send_multipart([b"topic", bytes(MESSAGE_BYTES)])
            await publisher.send_multipart([b"topic", b"next"])
            assert await wire.receive() == TooLong(MESSAGE_BYTES + 5)
            assert await wire.receive() == [b"topic", b"next"]
            await publisher.send_multipart([b""] * 40)
            with pytest.raises(WireBroken, match="too many parts"):
                await wire.receive()


async def test_its_end_is_noticed() -> None:
    with bound(zmq.ROUTER) as (router, path):
        async with connected(path, "DEALER") as wire:
            await wire.send([b"hello"])
            await router.recv_multipart()
            router.close()
            with pytest.raises(WireBroken, match="closed"):
                await wire.receive()
