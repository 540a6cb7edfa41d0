"""Hostile programs over HTTP, while others ask plain questions: each is contained, each answer ends
properly, and nobody else notices more than a busy machine."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from code_server import CodeServer, calls, coding, logs, new_home, to_the_end, until

MARK = f"86398.{secrets.randbelow(10**9)}"
SECRET = f"secret-{secrets.token_hex(8)}"
OTHERS = 4
MOST_SECONDS = 30.0
"""For an answer that takes 10 ms on a quiet machine: it has to come, however busy that is."""
MOST_GROWTH = 200 * 2**20

BOMBS = {
    "forks": """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
    "threads": """
import threading, time
while True:
    try:
        threading.Thread(target=time.sleep, args=(9999,)).start()
    except RuntimeError:
        pass
""",
    "memory": """
kept = []
while True:
    kept.append(bytearray(b"x") * (16 << 20))
""",
    "shared": """
import os
for number in range(10_000):
    with open(f"/dev/shm/{number}", "wb") as file:
        file.write(bytes(8 << 20))
""",
    "disk": """
for number in range(10_000):
    with open(f"filler-{number}", "wb") as file:
        file.write(b"x" * (4 << 20))
""",
    "entries": """
for number in range(10_000_000):
    open(f"entry-{number}", "w").close()
""",
    "output": """
while True:
    print("y" * 1000)
""",
    "errors": """
import os
while True:
    os.write(2, b"n" * 100_000)
""",
    "pictures": """
from IPython.display import display, Image
while True:
    display(Image(data=b"\\x89PNG\\r\\n\\x1a\\n" + bytes(4 << 20), format="png"))
""",
    "endless": """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
""",
    "orphans": f"""
import subprocess
for _ in range(20):
    subprocess.Popen(["sleep", "{MARK}"], start_new_session=True)
while True:
    pass
""",
}
"""What never ends by itself."""

READ = """
import glob, os
for path in ("/etc/shadow", "/root/.bashrc", *glob.glob("/proc/[0-9]*/environ")):
    try:
        print(path, open(path, "rb").read())
    except OSError as error:
        print(path, type(error).__name__)
print(dict(os.environ))
"""
CONNECT = """
import socket
port = int(open("port.txt").read())
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"),
                     (socket.AF_INET, "192.0.2.1")):
    try:
        with socket.socket(family) as there:
            there.settimeout(3)
            there.connect((host, port))
        print("reached")
    except OSError as error:
        print("refused", error.errno)
"""
PLAIN = """
for name in ("a.txt", "b.txt"):
    open(name, "w").write("mine")
"""
LINKS = """
import os
for name, to in {
    "a.txt": "/etc/passwd", "b.txt": "../../../../etc/passwd", "c": "/etc", "d": "/", "e": "..",
    "f": "/proc/self/environ", "g": "/mnt/data", "h": "h", "i": "nowhere",
}.items():
    if os.path.lexists(name):
        os.unlink(name)
    os.symlink(to, name)
os.mkdir("folder")
os.symlink("/etc/passwd", "folder/passwd")
os.mkfifo("pipe")
os.link("kept.txt", "hard.txt") if os.path.exists("kept.txt") else None
"""
PROGRAMS = {**BOMBS, "read": READ, "connect": CONNECT, "plain": PLAIN, "links": LINKS}


@dataclass
class Watched:
    """What others saw meanwhile.

    Attributes:
        trouble: answers that did not come, or not as they should.
        slowest: seconds of the slowest answer.
        answers: how many came.
        memory: the most that the server's own process had, in bytes.
    """

    trouble: list[str] = field(default_factory=list)
    slowest: float = 0.0
    answers: int = 0
    memory: int = 0

    def ask(self, server: CodeServer, number: int, over: threading.Event) -> None:
        while not over.is_set():
            began = time.monotonic()
            question = f"Hello {number} {began}"
            try:
                said = server.client.responses.create(model="o4-mini", input=question, store=False)
                if said.output_text != f"You said: {question}":
                    self.trouble.append(said.output_text)
            except openai.OpenAIError as error:
                self.trouble.append(repr(error))
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.answers += 1
            over.wait(0.1)

    def look(self, server: CodeServer, over: threading.Event) -> None:
        process = psutil.Process(server.server.process.pid)
        while not over.wait(0.1):
            self.memory = max(self.memory, process.memory_info().rss)
            server.look()


@contextmanager
def watched(server: CodeServer) -> Iterator[Watched]:
    """While others ask; they have to be answered, and memory has to stay."""
    seen, over = Watched(), threading.Event()
    before = psutil.Process(server.server.process.pid).memory_info().rss
    with ThreadPoolExecutor(OTHERS + 1) as pool:
        asking = [pool.submit(seen.ask, server, number, over) for number in range(OTHERS)]
        asking.append(pool.submit(seen.look, server, over))
        try:
            yield seen
        finally:
            over.set()
        for each in asking:
            each.result(2 * MOST_SECONDS)
    grown = (seen.memory - before) / 2**20
    print(f"{seen.answers} answers, slowest {seen.slowest:.2f} s; +{grown:.0f} MiB")
    assert seen.trouble == []
    assert seen.answers >= OTHERS
    assert seen.slowest < MOST_SECONDS
    assert seen.memory - before <= MOST_GROWTH


@pytest.fixture(scope="module")
def server() -> Iterator[CodeServer]:
    flags = ("--container-disk-mb", "32")
    with new_home() as home, coding(home, PROGRAMS, MARK, *flags, HIDDEN=SECRET) as running:
        yield running
        until(lambda: not running.marked(), running.marked)
        log = running.server.log.read_text()
        assert "Traceback" not in log
        assert " ERROR " not in log
        assert SECRET not in log
        assert running.server.stop() == 0
        assert running.left() == []


def run(server: CodeServer, word: str) -> Any:
    """A hostile program's response, which has to end by itself."""
    return to_the_end(server.ask(word, within=20, stream=True))


def test_bombs_hurt_nobody_else(server: CodeServer) -> None:
    with watched(server), ThreadPoolExecutor(3) as pool:
        ended = dict(zip(BOMBS, pool.map(lambda word: run(server, word), BOMBS), strict=True))
    for word, response in ended.items():
        first = calls(response)[0]
        assert response.status == "completed", (word, response.error)
        assert len(logs(first)) < 150_000
    for word in ("endless", "output", "errors", "pictures", "orphans", "disk", "entries"):
        # Stopped, and at worst so late on a busy machine that nothing of it was heard.
        assert calls(ended[word])[0].status in ("incomplete", "failed"), word
    rooms = server.client.containers
    for room in rooms.list(limit=100):
        # The first page will do: one of them has ten thousand files.
        shown = rooms.files.list(room.id, limit=100).data
        assert sum(file.bytes for file in shown) <= 32 * 2**20
        rooms.delete(room.id)
    # At most what is kept warm is left, and nothing that a program started.
    assert server.marked() == []
    until(lambda: len([each for each in server.look() if each.ppid() == server_pid(server)]) <= 1)


def server_pid(server: CodeServer) -> int:
    return server.server.process.pid


def test_nothing_of_the_host_is_read_and_nobody_reached(server: CodeServer) -> None:
    (call,) = calls(run(server, "read"))
    assert call.status == "completed"
    seen = logs(call)
    assert "/etc/shadow" in seen
    assert SECRET not in seen
    with suppress(PermissionError):  # a plain user's tests cannot read it either
        lines = Path("/etc/shadow").read_text().split("\n")
        assert all(line not in seen for line in lines if line)
    container = server.client.containers.create(name="net").id
    port = server.server.url.removesuffix("/v1").rpartition(":")[2].encode()
    server.client.containers.files.create(container, file=("port.txt", port))
    response = server.ask("connect", container)
    tried = logs(calls(response)[0]).split("\n")
    assert [line.partition(" ")[0] for line in tried if line] == ["refused"] * 3


def test_the_files_api_shows_nothing_that_lies_outside(server: CodeServer) -> None:
    first = server.ask("plain")
    container = calls(first)[0].container_id
    files = server.client.containers.files
    ids = {file.path.rpartition("/")[2]: file.id for file in files.list(container)}
    assert set(ids) == {"a.txt", "b.txt"}
    (call,) = calls(server.ask("links", container))
    assert call.status == "completed", logs(call)
    assert server.files(container) == {}
    for file_id in ids.values():
        for get in (files.retrieve, files.content.retrieve):
            with pytest.raises(openai.NotFoundError):
                get(file_id, container_id=container)
    cited = [each for part in call.outputs or () for each in getattr(part, "files", ())]
    assert cited == []
    # A client's file by the name of a link takes the link's place, and follows it nowhere.
    files.create(container, file=("a.txt", b"from the client"))
    assert server.files(container) == {"/mnt/data/a.txt": b"from the client"}
    assert "from the client" not in Path("/etc/passwd").read_text()
