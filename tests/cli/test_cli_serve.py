"""`ouzel serve` as a process: from the first line to Ctrl-C, and what stands in its way."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from terminals import OUZEL, PATIENCE, environment, run_process, terminal


def test_it_shows_its_steps_listens_and_stops_with_ctrl_c(home: Path, script: Path) -> None:
    with terminal("serve", "--port", "0", "--script", str(script), home=home) as shown:
        shown.expect("Opening the store")
        url = shown.expect(r"listens at (\S+?/v1)")[1]
        shown.expect("serving scripted")
        request = shown.expect(r"curl [^\n]*")[0].strip()
        shown.expect("Stop with Ctrl-C")
        words = shlex.split(request)
        assert words[2] == f"{url}/responses"
        asked = urllib.request.Request(
            words[2], words[-1].encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=30) as reply:
            assert b"response.completed" in reply.read()
        shown.type("\x03")
        assert shown.end() == 0
        assert "Traceback" not in shown.seen
        assert "Ouzel has stopped." in shown.seen


def test_ctrl_c_ends_a_running_answer_and_says_so_to_its_client(home: Path, script: Path) -> None:
    with terminal(
        "serve", "--port", "0", "--script", str(script), "--shutdown-grace", "1", home=home
    ) as shown:
        url = shown.expect(r"listens at (\S+?/v1)")[1]
        shown.expect("Stop with")
        asking = subprocess.Popen(
            [*OUZEL, "ask", "--url", url, "slowly"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(home),
        )
        assert asking.stdout is not None
        assert asking.stdout.read(4) == "word"
        shown.type("\x03")
        assert shown.end() == 0
        _, err = asking.communicate(timeout=PATIENCE)
        assert asking.returncode == 1
        assert err.startswith("Error: ")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_clean_end(home: Path, script: Path, sent: signal.Signals) -> None:
    with subprocess.Popen(
        [*OUZEL, "serve", "--port", "0", "--script", str(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(home),
    ) as process:
        assert process.stdout is not None
        seen = ""
        while "Stop with" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        assert "\x1b" not in seen, "no terminal, no colours"
        process.send_signal(sent)
        assert "Traceback" not in process.stdout.read()
        assert process.wait(PATIENCE) == 0


def test_settings_come_from_everywhere(home: Path, script: Path) -> None:
    state = home / "state"
    state.mkdir()
    (state / "ouzel.toml").write_text(f"script = {json.dumps(str(script))}\nport = 1\nslots = 1")
    with terminal("serve", home=home, OUZEL_HOME=str(state), OUZEL_PORT="0") as shown:
        url = shown.expect(r"listens at (\S+?/v1)")[1]
        assert not url.endswith(":1/v1")
        assert (state / "ouzel.db").exists()
        assert not (home / ".ouzel").exists()
        shown.expect("Stop with")
        shown.type("\x03")
        assert shown.end() == 0


def test_a_port_in_use_is_said_at_once(home: Path, script: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_process("serve", "--port", port, "--script", str(script), home=home)
    assert done.code == 1
    assert done.err.startswith(f"Error: Port {port}")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--script", "/no/such/script"], "/no/such/script"),
        (["--model", "/no/such.gguf"], "/no/such.gguf"),
        (["--model", "smolm2"], "smollm2"),
        (["--model", __file__], "GGUF"),
        (["--engine-url", "http://127.0.0.1:9/v1", "--engine-retries", "0"], "127.0.0.1:9"),
    ],
)
def test_an_engine_that_cannot_be_had_is_one_sentence(
    home: Path, arguments: list[str], says: str
) -> None:
    done = run_process("serve", "--port", "0", *arguments, home=home)
    assert done.code == 1
    assert says in done.err
    assert "Traceback" not in done.err
    assert done.err.strip().splitlines()[-1].startswith("Error: ")


def test_a_key_is_asked_for_and_never_shown(home: Path, script: Path) -> None:
    key = "long-secret-key"
    with terminal(
        "serve", "--port", "0", "--script", str(script), home=home, OUZEL_API_KEY=key
    ) as shown:
        url = shown.expect(r"listens at (\S+?/v1)")[1]
        shown.expect("OUZEL_API_KEY")
        shown.expect("Stop with")
        port = url.removesuffix("/v1").rpartition(":")[2]
        refused = run_process("ask", "--url", url, "hi", home=home, OUZEL_API_KEY=key)
        assert refused.code == 1
        assert "--key" in refused.err
        own = run_process("ask", "hi", home=home, OUZEL_API_KEY=key, OUZEL_PORT=port)
        assert own.out == "You said: hi\n"
        assert run_process("ask", "--url", url, "--key", key, "hi", home=home).code == 0
        shown.type("\x03")
        assert shown.end() == 0
        assert key not in shown.seen


def test_a_terminal_that_is_closed_ends_the_server(home: Path, script: Path) -> None:
    with terminal("serve", "--port", "0", "--script", str(script), home=home) as shown:
        shown.expect("Stop with")
        os.kill(shown.process.pid, signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while shown.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert shown.process.poll() is not None
