"""A real `ouzel serve` whose led model writes the programs that a test gives it, and a census of
the processes that it starts.

The model is the scripted engine; all else is what a user runs. A client's message names a program
by a word in it. After code that failed the model writes `AGAIN`; after code that ran it answers
with what it was told of the interpreter. How code is kept in, this file does not know.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil

from ouzel.sandbox.jail_uids import RANGES
from served import Served, served

CACHE = Path.home() / ".cache" / "ouzel"
AUTO = {"type": "code_interpreter", "container": {"type": "auto"}}
OUTPUTS: Any = ["code_interpreter_call.outputs"]
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
PATIENCE = 60.0
"""Seconds for what takes one on a quiet machine."""

AGAIN = "print('again', globals().get('kept'), open('kept.txt').read())\n"
"""Tells whether variables and files are still there."""

_CODE = r"```python\n([\s\S]*\n)?$"
_TOLD = {
    "died, anew": r"interpreter died[\s\S]*was started anew[\s\S]*```$",
    "died": r"interpreter died[\s\S]*```$",
    "stopped": r"It was stopped after[\s\S]*```$",
    "anew": r"was started anew[\s\S]*```$",
    "nothing": r"```output\n[\s\S]*```$",
}


def script(programs: Mapping[str, str]) -> str:
    """A script for the engine: a program for each word that a message may have in it."""
    replies = [
        {"opening": "That failed because$", "say": " of what it told."},
        {"opening": rf"That failed because[\s\S]*{_CODE}", "say": AGAIN},
    ]
    replies += [
        {"last": "^Now answer", "before": seen, "say": f"Told: {told}."}
        for told, seen in _TOLD.items()
    ]
    replies += [
        {"match": rf"\b{word}\b", "opening": _CODE, "say": code} for word, code in programs.items()
    ]
    replies.append({"say": "You said: {input}"})
    lines = ['tool_style = "guided"', 'thinks = "no"', "context_window = 50000"]
    for reply in replies:
        # Texts of JSON are texts of TOML, too.
        texts = {name: json.dumps(text, ensure_ascii=False) for name, text in reply.items()}
        steps = f"steps = [{{ say = {texts.pop('say')} }}]"
        lines += ["[[reply]]", *(f"{name} = {text}" for name, text in texts.items()), steps]
    return "\n".join(lines)


@contextmanager
def new_home() -> Iterator[Path]:
    """A home that sandboxes of other users can walk to; pytest's own folders are closed to them."""
    home = Path(tempfile.mkdtemp(prefix="code-server-"))
    home.chmod(0o711)
    try:
        yield home
    finally:
        shutil.rmtree(home)


@dataclass
class CodeServer:
    """A running server, and whatever it was seen to start.

    Args:
        mark: argument by which processes of programs are known, on the whole machine.
    """

    server: Served
    home: Path
    mark: str
    client: openai.OpenAI
    seen: dict[tuple[int, float], bool] = field(default_factory=dict)
    uids: set[int] = field(default_factory=set)

    def ask(self, word: str, container: str | None = None, within: int = 60, **more: Any) -> Any:
        """A response for which the program of this name is written and run."""
        tool = {**AUTO, "container": container} if container else AUTO
        return self.client.responses.create(
            model="o4-mini",
            input=f"Run the code: {word}",
            tools=[tool],
            include=OUTPUTS,
            extra_headers={"x-answer-within": str(within)},
            **more,
        )

    def look(self) -> list[psutil.Process]:
        """All that runs below the server now; remembered for `left`."""
        found = self.server.children()
        for process in found:
            try:
                self.seen[process.pid, process.create_time()] = True
                uid = process.uids().real
            except psutil.NoSuchProcess:
                continue
            if any(first <= uid < first + count for first, count in RANGES):
                self.uids.add(uid)
        return found

    def left(self) -> list[str]:
        """Which of the machine's processes are this server's sandboxes, or came out of them."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                line = " ".join(process.cmdline())
                known = (process.pid, process.create_time()) in self.seen
                known = known or process.uids().real in self.uids
                if known or self.mark in line or str(self.home / "containers") in line:
                    found.append(f"{process.pid} {line[:80]}")
            except psutil.NoSuchProcess:
                continue
        return found

    def marked(self) -> list[psutil.Process]:
        """Processes that programs started under this server's mark."""
        found = []
        for process in psutil.process_iter():
            try:
                if self.mark in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def wait_for_mark(self) -> psutil.Process:
        """The process that a cell started: the cell is being run. Then all there is, is seen."""
        until(lambda: bool(self.marked()))
        self.look()
        return self.marked()[0]

    def files(self, container: str) -> dict[str, bytes]:
        """What the API shows of a container's files: paths and contents."""
        files = self.client.containers.files
        return {
            file.path: files.content.retrieve(file.id, container_id=container).content
            for file in files.list(container)
        }


@contextmanager
def coding(
    home: Path, programs: Mapping[str, str], mark: str, *flags: str, **env: str
) -> Iterator[CodeServer]:
    """A server with these programs; whatever the test does to it, nothing of it is left."""
    path = home / "script.toml"
    path.write_text(script(programs))
    switches = ("--script", str(path), "--code-interpreter", "on", "--cache", str(CACHE), *flags)
    with served(home / "state", *switches, **env) as server:
        client = openai.OpenAI(
            base_url=server.url, api_key="none", timeout=2 * PATIENCE, max_retries=0
        )
        running = CodeServer(server, home / "state", mark, client)
        with client:
            yield running
    until(lambda: not running.left(), running.left)


def until(condition: Callable[[], bool], told: Callable[[], object] = str) -> None:
    """Wait for it; `told` says what is there instead."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


def to_the_end(events: Any) -> Any:
    """The response in a stream's terminal event; nothing comes after that."""
    seen = list(events)
    ends = [event for event in seen if event.type in TERMINAL]
    assert ends == seen[-1:], [event.type for event in seen]
    return ends[0].response


def logs(call: Any) -> str:
    """What a call of the code interpreter wrote."""
    return "".join(each.logs for each in call.outputs or () if each.type == "logs")


def calls(response: Any) -> list[Any]:
    """The programs of a response."""
    return [item for item in response.output if item.type == "code_interpreter_call"]
