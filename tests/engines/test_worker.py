"""The engine's process by itself: what it says, what it hides, and when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ouzel.engines import worker

pytestmark = pytest.mark.tiny

KEY = "a-key-that-nobody-guesses"
PLAN = {
    "threads": 1,
    "slots": 2,
    "context": 512,
    "batch": 64,
    "step": 64,
    "gpu_layers": 0,
    "fit": False,
    "prompt_cache": 16,
    "kv_bytes": 0,
}


class Worker:
    """A worker process and its two pipes."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ouzel.engines.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def load(self, weights: Path) -> None:
        assert self.process.stdin is not None
        settings = {
            "weights": str(weights),
            "name": "tiny",
            "key": KEY,
            "connections": 8,
            "log": str(self.log),
            "prefixes": f"{self.log.parent}/",
            "plan": PLAN,
        }
        self.process.stdin.write(json.dumps(settings).encode() + b"\n")
        self.process.stdin.flush()

    def leave(self) -> None:
        """What the end of the parent looks like from inside."""
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def begin() -> Worker:
        workers.append(Worker(tmp_path / "engine.log"))
        return workers[-1]

    yield begin
    for each in workers:
        each.process.kill()
        each.process.wait()
        for pipe in (each.process.stdin, each.process.stdout):
            assert pipe is not None
            pipe.close()


def ask(address: str, path: str, key: str | None, body: object | None = None) -> Any:
    request = urllib.request.Request(
        address + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"}
        | ({} if key is None else {"Authorization": f"Bearer {key}"}),
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.loads(reply.read())


def test_it_says_how_far_it_is_and_serves_who_has_the_key(
    start: Callable[[], Worker], tiny_weights: Path
) -> None:
    one = start()
    hello = one.hear()
    assert hello["state"] == "started"
    assert {device["kind"] for device in hello["devices"]} <= {"cpu", "gpu", "igpu", "accel"}
    one.load(tiny_weights)
    assert one.hear() == {"state": "loading"}
    ready = one.hear()
    assert ready["state"] == "ready"
    address = ready["address"]
    assert address.startswith("http://127.0.0.1:")
    for key in (None, "wrong", KEY[:-1], KEY + "x"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(address, "/v1/chat/completions", key, {"messages": []})
        refused.value.close()
        assert refused.value.code == 401
    hello_there = [{"role": "user", "content": "Hello"}]
    answer = ask(address, "/v1/chat/completions", KEY, {"messages": hello_there, "max_tokens": 3})
    assert answer["choices"][0]["finish_reason"] == "length"
    assert ask(address, "/props", KEY)["default_generation_settings"]["n_ctx"] == 512


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_key_is_neither_in_arguments_nor_environment_nor_log(
    start: Callable[[], Worker], tiny_weights: Path
) -> None:
    one = start()
    one.hear()
    one.load(tiny_weights)
    one.hear()
    address = one.hear()["address"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(address, "/slots", "wrong")
    refused.value.close()
    ask(address, "/tokenize", KEY, {"content": "x"})
    proc = Path("/proc") / str(one.process.pid)
    assert KEY.encode() not in (proc / "cmdline").read_bytes()
    assert KEY.encode() not in (proc / "environ").read_bytes()
    assert KEY.encode() not in one.log.read_bytes()


def test_no_prompt_is_ever_logged(start: Callable[[], Worker], tiny_weights: Path) -> None:
    one = start()
    one.hear()
    one.load(tiny_weights)
    one.hear()
    address = one.hear()["address"]
    secret = "xyzzyplugh"
    message = [{"role": "user", "content": secret}]
    bodies: list[dict[str, object]] = [
        {"messages": message, "max_tokens": 4},
        {"messages": [{"role": "user", "content": f"{secret} " * 400}]},
        {"messages": message, "max_tokens": secret},
        {"messages": [{"role": secret, "content": {"text": secret}}]},
        {"messages": secret},
        {"messages": message, "stop": secret, "temperature": secret},
        {"messages": message, "response_format": {"type": secret}},
        {"messages": message, "tools": [{"type": "function", "function": {"name": secret}}]},
    ]
    refused = 0
    for body in bodies:
        try:
            ask(address, "/v1/chat/completions", KEY, body)
        except urllib.error.HTTPError as error:
            error.close()
            refused += 1
    assert refused >= 4
    ask(address, "/tokenize", KEY, {"content": secret})
    assert secret.encode() not in one.log.read_bytes()


@pytest.mark.parametrize("stage", ["born", "started", "loading", "ready"])
def test_it_ends_when_stdin_does_whatever_it_is_doing(
    start: Callable[[], Worker], tiny_weights: Path, stage: str
) -> None:
    one = start()
    if stage != "born":
        one.hear()
    if stage in ("loading", "ready"):
        one.load(tiny_weights)
        one.hear()
    if stage == "ready":
        one.hear()
    one.leave()
    assert one.process.wait(timeout=30) == 0


def test_signals_for_the_group_do_not_end_it(
    start: Callable[[], Worker], tiny_weights: Path
) -> None:
    one = start()
    one.hear()
    one.load(tiny_weights)
    one.hear()
    address = one.hear()["address"]
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        one.process.send_signal(each)
    time.sleep(0.2)
    assert one.process.poll() is None
    assert ask(address, "/health", KEY) == {"status": "ok"}
    assert os.getpgid(one.process.pid) != os.getpgid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_it_lets_others_go_first(start: Callable[[], Worker]) -> None:
    one = start()
    one.hear()
    assert psutil.Process(one.process.pid).nice() > psutil.Process().nice()
    score = Path("/proc") / str(one.process.pid) / "oom_score_adj"
    assert int(score.read_text()) > int(Path("/proc/self/oom_score_adj").read_text())


def test_weights_that_cannot_be_loaded_are_reported(
    start: Callable[[], Worker], tiny_weights: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    with tiny_weights.open("rb") as whole:
        cut.write_bytes(whole.read(60_000_000))
    one = start()
    one.hear()
    one.load(cut)
    one.hear()
    failed = one.hear()
    assert failed["state"] == "failed"
    assert failed["reason"]
    assert one.process.wait(timeout=30) == 1
    assert b"corrupted or incomplete" in one.log.read_bytes()


def test_a_log_that_is_full_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"old\n")
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from ouzel.engines import worker\n"
        "worker.begin_log(Path(sys.argv[1]))\n"
        "os.write(2, b'new\\n')\n"
        "os.write(1, b'too\\n')\n"
    )
    with log.open("ab") as errors:
        subprocess.run([sys.executable, "-c", program, str(log)], stderr=errors, check=True)
    assert log.read_bytes() == b"new\ntoo\n"
    assert (tmp_path / "engine.log.1").read_bytes() == b"old\n"
    assert log.stat().st_mode & 0o077 == 0


def test_importing_it_loads_nothing_heavy() -> None:
    program = (
        "import sys, ouzel.engines.worker\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('xllamacpp', 'aiohttp', 'psutil')])\n"
        "print([m for m in sys.modules if m.startswith('ouzel.')])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n['ouzel.engines', 'ouzel.engines.worker']\n"
    assert worker.__doc__
