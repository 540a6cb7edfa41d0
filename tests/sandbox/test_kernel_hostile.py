"""Code that turns on its own kernel and on us: floods, forged and broken messages."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from kernel_kit import ALLOW, MB, run, started

FORGE = """
from ipykernel.kernelapp import IPKernelApp
kernel = IPKernelApp.instance().kernel
session, iopub = kernel.session, kernel.iopub_socket
def forge(kind, content, socket=iopub, **more):
    session.send(socket, kind, content, parent=kernel.get_parent(), **more)
"""

# Writes to every socket that a client is connected to, past the library.
RAW = """
import os, stat
def raw(data):
    for fd in range(3, 200):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, data)
        except OSError: pass
"""


async def test_output_without_end_is_cut_and_stopped(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        kept = "kept = 1\nwhile True: print('x' * 10000)"
        ran = await run(kernel, kept, within=60)
        assert (ran.status, ran.end.error) == ("interrupted", "it wrote without end")
        assert ran.end.cut
        assert 0 < len(ran.out) <= ALLOW.output_bytes
        few = replace(ALLOW, messages=200)
        ran = await run(kernel, "while True: print('y', flush=True)", allow=few)
        assert (ran.status, ran.end.error) == ("interrupted", "it wrote without end")
        ran = await run(kernel, "print('é' * 300_000)\nkept")
        assert (ran.status, ran.end.cut) == ("ok", True)
        assert len(ran.out.encode()) <= ALLOW.output_bytes
        assert (await run(kernel, "kept")).result == "1"


async def test_too_many_and_broken_pictures_are_left_out(tmp_path: Path) -> None:
    show = "from IPython.display import publish_display_data as show\nimport base64\n"
    data = "base64.b64encode(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(1000)).decode()"
    two = replace(ALLOW, pictures=2)
    async with started(tmp_path) as kernel:
        ran = await run(kernel, f"{show}for _ in range(5): show({{'image/png': {data}}})", 30, two)
        assert (len(ran.pictures), ran.end.cut, ran.status) == (2, True, "ok")
        for junk in ("'###'", "base64.b64encode(b'GIF89a').decode()", "'é'", "7"):
            ran = await run(kernel, f"show({{'image/png': {junk}}})")
            assert (ran.pictures, ran.status) == ([], "ok")
        large = "base64.b64encode(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(30_000_000)).decode()"
        ran = await run(kernel, f"show({{'image/png': {large}}})")
        assert (ran.pictures, ran.end.cut) == ([], True)
        assert (await run(kernel, "1")).result == "1"


async def test_a_forged_end_ends_only_its_own_cell(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        code = f"{FORGE}forge('status', {{'execution_state': 'idle'}})\nimport time\ntime.sleep(60)"
        ran = await run(kernel, code)
        assert ran.status == "interrupted"
        assert (await run(kernel, "1 + 1")).result == "2"
        # Messages of other cells, or of none, say nothing of this one.
        code = (
            "other = {'header': {'msg_id': 'x'}}\n"
            "session.send(iopub, 'stream', {'name': 'stdout', 'text': 'no'}, parent=other)\n"
            "session.send(iopub, 'status', {'execution_state': 'idle'}, parent=other)\n"
            "print('yes')"
        )
        ran = await run(kernel, code)
        assert (ran.out, ran.status) == ("yes\n", "ok")


@pytest.mark.parametrize(
    "content",
    ["{}", "{'data': 5}", "{'data': {'text/plain': ['a']}}", "{'data': {'image/png': {}}}"],
)
async def test_odd_contents_are_no_harm(tmp_path: Path, content: str) -> None:
    async with started(tmp_path) as kernel:
        odd = f"forge('display_data', {content})\nforge('stream', {{'text': 5}})\nforge('x', 3)"
        assert (await run(kernel, f"{FORGE}{odd}")).status in ("ok", "error", "died")
        alive = kernel.alive
        assert (await run(kernel, "1")).status == ("ok" if alive else "died")


@pytest.mark.parametrize(
    "junk",
    [
        "iopub.send_multipart([b'junk'])",
        "iopub.send_multipart([b'x'] * 500)",
        "iopub.send_multipart([b'<IDS|MSG>', b'no signature', b'{}', b'{}', b'{}', b'{}'])",
        "iopub.send_multipart([b'<IDS|MSG>', *[b''] * 5])",
        "session.pack = lambda message: b'[' * 100_000\nforge('stream', {})",
        "session.pack = lambda message: b'\\xff\\xfe{'\nforge('stream', {})",
    ],
)
async def test_what_is_no_message_ends_the_kernel(tmp_path: Path, junk: str) -> None:
    async with started(tmp_path) as kernel:
        ran = await run(kernel, f"{FORGE}{junk}\nimport time\ntime.sleep(60)")
        assert ran.status == "died"
        assert "broke the connection" in ran.end.error


@pytest.mark.parametrize(
    "data",
    [
        "os.urandom(100_000)",
        r"b'\x01\x00' * 100_000",
        r"b'\x04\x00' * 100_000",
        r"b'\x02' + b'\x7f' * 8",
        r"b'\x00'",
    ],
)
async def test_bytes_past_the_protocol_are_survived(tmp_path: Path, data: str) -> None:
    async with started(tmp_path) as kernel:
        ran = await run(kernel, f"{RAW}raw({data})\nimport time\ntime.sleep(60)", within=1)
        assert ran.status in ("died", "interrupted")
        if kernel.alive:
            assert (await run(kernel, "1", within=1)).status in ("ok", "died", "interrupted")


async def test_a_kernel_that_closes_its_sockets_is_dead(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        ran = await run(kernel, "import os\nos.closerange(3, 200)\nwhile True: pass")
        assert ran.status == "died"


async def test_too_much_memory(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        ran = await run(kernel, "kept = 1\nbytearray(10**10)")
        assert ran.end.error.startswith("MemoryError")
        assert (await run(kernel, "kept")).result == "1"
        code = (
            "import os, time\n"
            "for _ in range(8):\n"
            "    if not os.fork():\n"
            "        mine = b'x' * 60_000_000\n"
            "        time.sleep(60)\n"
            "time.sleep(60)"
        )
        ran = await run(kernel, code, allow=replace(ALLOW, memory=400 * MB))
        assert (ran.status, ran.end.error) == ("died", "it used more than 400 MB of memory")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "for i in range(9): open(f'new{i}', 'wb').write(bytes(20_000_000))",
            "it filled the work folder with more than 100 MB",
        ),
        ("for i in range(500): open(f'new{i}', 'w')", "it made more than 400 files"),
        (
            "import os\nfor i in range(90): os.mkdir('new'); os.chdir('new')",
            "its folders nest more than 32 deep",
        ),
    ],
)
async def test_what_fills_the_folder_is_stopped_and_removed(
    tmp_path: Path, code: str, why: str
) -> None:
    allow = replace(ALLOW, work_files=400)
    async with started(tmp_path) as kernel:
        work = tmp_path / "work"
        assert (await run(kernel, "open('old', 'w').write('old')")).status == "ok"
        await asyncio.sleep(0.05)
        ran = await run(kernel, code, allow=allow)
        assert (ran.status, ran.end.error) == ("died", why)
        assert ran.end.removed
        assert all(name.startswith("new") for name in ran.end.removed)
        assert (work / "old").read_text() == "old"
        left = list(work.rglob("*"))
        assert len(left) <= 400
        assert sum(path.stat().st_size for path in left) <= allow.work_bytes


async def test_what_was_full_once_runs_code_again(tmp_path: Path) -> None:
    allow = replace(ALLOW, work_files=400)
    async with started(tmp_path) as kernel:
        ran = await run(kernel, "for i in range(900): open(f'{i}', 'w').close()", allow=allow)
        assert ran.status == "died"
    async with started(tmp_path) as kernel:
        for _ in range(2):
            ran = await run(kernel, "import time; time.sleep(0.5); 1", allow=allow)
            assert (ran.status, ran.result) == ("ok", "1"), ran.end


@pytest.mark.parametrize(
    "error", ["ValueError('no: ' + 'x' * 20_000_000)", "type('E' * 20_000_000, (Exception,), {})()"]
)
async def test_an_error_with_a_very_long_text_is_an_error(tmp_path: Path, error: str) -> None:
    async with started(tmp_path) as kernel:
        ran = await run(kernel, f"kept = 1\ndef fail(): raise {error}\nfail()")
        assert ran.status == "error", ran.end
        assert ran.end.error.startswith(("ValueError: no: x", "EEE"))
        assert "in fail" in ran.end.traceback
        assert (await run(kernel, "kept")).result == "1"


async def test_what_goes_on_after_its_cell_is_ended(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        code = (
            "import threading, time\n"
            "def later():\n"
            "    time.sleep(0.5)\n"
            "    for i in range(9): open(f'new{i}', 'wb').write(bytes(20_000_000))\n"
            "    time.sleep(60)\n"
            "threading.Thread(target=later).start()"
        )
        assert (await run(kernel, code)).status == "ok"
        before = time.monotonic()
        while kernel.alive and time.monotonic() < before + 20:
            await asyncio.sleep(0.05)
        assert "after its cell had ended" in kernel.why_dead
        ran = await run(kernel, "1")
        assert ran.status == "died"
        size = sum(path.stat().st_size for path in (tmp_path / "work").iterdir())
        assert size <= ALLOW.work_bytes
