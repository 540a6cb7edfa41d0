"""Containers end to end: the official SDK, the real store, and code in the real sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from files_kit import check, real_containers, real_files, real_jail, work_folder
from openai import AsyncOpenAI

from harness import Running
from ouzel.core.files import CellDone, CellText
from ouzel.sandbox.containers import SandboxContainers
from ouzel.sandbox.environment import Interpreter, ensure_interpreter
from ouzel.store import SqlFiles

OWNER = "local"


@pytest.fixture(scope="module")
def interpreter() -> Interpreter:
    """What runs the code; set up once for all."""
    return ensure_interpreter(Path.home() / ".cache" / "ouzel")


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[SqlFiles]:
    async with real_files(tmp_path / "kept") as opened:
        yield opened


@pytest.fixture
async def rooms(files, tmp_path, interpreter) -> AsyncIterator[SandboxContainers]:
    jail = await real_jail(tmp_path)
    opened = real_containers(tmp_path / "rooms", files, jail, interpreter, disk_mb=64)
    await opened.start()
    yield opened
    await opened.close()


@pytest.fixture
async def client(files, rooms, serve, sdk) -> AsyncOpenAI:
    server: Running = await serve(files=files, containers=rooms)
    return sdk(server)


async def run(rooms: SandboxContainers, container_id: str, code: str) -> tuple[str, CellDone]:
    """What a cell wrote, and how it ended."""
    text, done = "", None
    async for event in rooms.run(container_id, OWNER, code, 60.0):
        if isinstance(event, CellText):
            text += event.text
        elif isinstance(event, CellDone):
            done = event
    assert done is not None
    return text, done


PLOT = """
import matplotlib.pyplot as plt
import pandas as pd
table = pd.read_csv("sales.csv")
table.plot(x="month", y="sold")
plt.savefig("plot.png")
plt.close()
print(table["sold"].sum())
"""


async def test_code_works_over_files_of_the_client_and_leaves_its_own(client, rooms):
    rows = "month,sold\n" + "".join(f"{n},{n * n}\n" for n in range(1, 13))
    sales = await client.files.create(file=("sales.csv", rows.encode()), purpose="user_data")
    box = await client.containers.create(name="sales", file_ids=[sales.id])
    text, done = await run(rooms, box.id, PLOT)
    assert (text.strip(), done.status) == ("650", "ok"), done
    found = {each.path: each async for each in client.containers.files.list(box.id)}
    assert set(found) == {"/mnt/data/sales.csv", "/mnt/data/plot.png"}
    assert found["/mnt/data/sales.csv"].source == "user"
    plot = found["/mnt/data/plot.png"]
    check("container.file", plot.to_dict())
    assert plot.source == "assistant"
    content = await client.containers.files.content.retrieve(plot.id, container_id=box.id)
    assert content.response.headers["content-type"] == "image/png"
    picture = content.content
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture[-8:-4] == b"IEND"
    assert int.from_bytes(picture[16:20], "big") > 100  # its width

    put = await client.containers.files.create(box.id, file=("more.txt", b"more"))
    text, _ = await run(rooms, box.id, "print(open('more.txt').read(), len(table))")
    assert text.strip() == "more 12"
    await client.containers.files.delete(put.id, container_id=box.id)
    _, done = await run(rooms, box.id, "open('more.txt')")
    assert (done.status, done.error[:17]) == ("error", "FileNotFoundError")
    assert (await client.files.retrieve(sales.id)).bytes == len(rows)


TRICKS = """
import os
os.symlink("/etc/passwd", "link.txt")
os.symlink("/etc", "folder")
os.symlink("../../..", "up")
os.mkfifo("pipe")
os.makedirs("plain")
open("plain/ok.txt", "w").write("fine")
os.link("plain/ok.txt", "twice.txt")
open("a\\nb.txt", "w").write("x")
os.chmod("plain/ok.txt", 0)
"""


async def test_tricks_with_files_reach_nothing_outside(client, rooms, tmp_path):
    box = await client.containers.create(name="tricks")
    _, done = await run(rooms, box.id, TRICKS)
    assert done.status == "ok", done
    found = [each async for each in client.containers.files.list(box.id)]
    for each in found:
        assert "\n" not in each.path
        try:
            got = await client.containers.files.content.retrieve(each.id, container_id=box.id)
        except openai.APIStatusError as error:
            assert error.status_code < 500, (each, error)  # noqa: PT017
        else:
            assert b"root:" not in got.content
    assert not [each.path for each in found if "link" in each.path or "pipe" in each.path]
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    # A file that was shown and is a link by the time it is asked for.
    await run(rooms, box.id, "open('later.txt', 'w').write('x')")
    found = [each async for each in client.containers.files.list(box.id)]
    (later,) = (each for each in found if each.path.endswith("later.txt"))
    whole = work_folder(rooms, box.id) / "later.txt"
    whole.unlink()
    whole.symlink_to(secret)
    for call in (
        client.containers.files.content.retrieve(later.id, container_id=box.id),
        client.containers.files.retrieve(later.id, container_id=box.id),
    ):
        with pytest.raises(openai.NotFoundError):
            await call


async def test_files_can_be_had_while_code_runs(client, rooms):
    box = await client.containers.create(name="busy")
    put = await client.containers.files.create(box.id, file=("in.txt", b"hello"))
    code = "open('began', 'w').close()\nimport time\ntime.sleep(120)"
    cell = asyncio.create_task(run(rooms, box.id, code))
    async with asyncio.timeout(60):
        while not cell.done():
            paths = [each.path async for each in client.containers.files.list(box.id)]
            if "/mnt/data/began" in paths:
                break
            await asyncio.sleep(0.05)
    assert not cell.done()
    content = await client.containers.files.content.retrieve(put.id, container_id=box.id)
    assert content.content == b"hello"
    await client.containers.delete(box.id)
    async with asyncio.timeout(30):
        await asyncio.wait({cell})
    assert cell.exception() is not None or cell.result()[1].status in ("died", "interrupted")
    with pytest.raises(openai.NotFoundError):
        await client.containers.retrieve(box.id)
