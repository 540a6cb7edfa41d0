"""`ouzel ask` against a real server: streams, pipes, failures, Ctrl-C."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from terminals import run, run_process, terminal


def test_the_answer_goes_to_standard_output_alone(server_url: str, home: Path) -> None:
    done = run_process("ask", "--url", server_url, "hello", home=home)
    assert (done.code, done.out, done.err) == (0, "You said: hello\n", "")


def test_what_is_piped_in_follows_the_question(server_url: str, home: Path) -> None:
    done = run_process("ask", "--url", server_url, "Sum up:", home=home, stdin="a\nüñ\n".encode())
    assert done.out == "You said: Sum up:\n\na\nüñ\n"
    alone = run("ask", "--url", server_url, home=home, stdin=b"only this")
    assert alone.out == "You said: only this\n"


def test_the_url_may_lack_its_path(server_url: str, home: Path) -> None:
    base = server_url.removesuffix("/v1")
    for url in (base, base + "/", server_url + "/"):
        assert run("ask", "--url", url, "hi", home=home).out == "You said: hi\n"


def test_the_settings_say_where_the_server_is(server_url: str, home: Path) -> None:
    port = server_url.removesuffix("/v1").rpartition(":")[2]
    assert run("ask", "hi", home=home, OUZEL_PORT=port).out == "You said: hi\n"
    file = home / "my.toml"
    file.write_text(f"port = {port}")
    assert run("ask", "--config", str(file), "hi", home=home).out == "You said: hi\n"


def test_json_prints_the_response_object(server_url: str, home: Path) -> None:
    done = run("ask", "--json", "--url", server_url, "-i", "Be kind.", "hi", home=home)
    response = json.loads(done.out)
    assert response["object"] == "response"
    assert response["status"] == "completed"
    assert response["instructions"] == "Be kind."
    assert response["store"] is False
    assert response["output"][0]["content"][0]["text"] == "You said: hi"


def test_thinking_is_not_part_of_a_piped_answer(server_url: str, home: Path) -> None:
    done = run("ask", "--url", server_url, "think", home=home)
    assert done.out == "Thought: think\n"


def test_an_answer_that_is_cut_short_says_so(server_url: str, home: Path) -> None:
    done = run("ask", "--url", server_url, "limit", home=home)
    assert (done.code, done.out) == (0, "cut\n")
    assert "max_output_tokens" in done.err


def test_an_engine_that_dies_is_one_sentence_and_exit_1(server_url: str, home: Path) -> None:
    done = run("ask", "--url", server_url, "die", home=home)
    assert done.code == 1
    assert done.out == "half of it \n"
    assert done.err == "Error: The engine went away.\n"


def test_no_server_is_a_hint(home: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        done = run("ask", "hi", home=home, OUZEL_PORT=port)
    assert done.code == 1
    assert "ouzel serve" in done.err
    assert port in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        ([], b"", "Say what to ask"),
        (["  \n "], b"", "Say what to ask"),
        (["hi"], b"\xff\xfe", "not UTF-8"),
        (["hi", "--model", "nope"], b"", "nope"),
        (["hi", "--url", "nonsense"], b"", "not a URL"),
        (["hi", "--url", "http://[::1"], b"", "not a URL"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    server_url: str, home: Path, arguments: list[str], stdin: bytes, says: str
) -> None:
    where = [] if "--url" in arguments else ["--url", server_url]
    done = run("ask", *where, *arguments, home=home, stdin=stdin)
    assert done.code == 1
    assert says in done.err
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1
    assert done.out == ""


def test_a_question_may_begin_with_a_dash(server_url: str, home: Path) -> None:
    assert run("ask", "--url", server_url, "--", "-1?", home=home).out == "You said: -1?\n"


def test_a_wrong_setting_is_exit_2_and_a_traceback_is_shown_only_on_demand(home: Path) -> None:
    done = run("ask", "hi", home=home, OUZEL_PROT="1")
    assert done.code == 2
    assert done.err == "Error: Unknown environment variable OUZEL_PROT. Did you mean OUZEL_PORT?\n"
    debug = run("ask", home=home, OUZEL_LOG_LEVEL="debug")
    assert "Traceback" in debug.err
    assert debug.code == 1


def test_ctrl_c_stops_the_answer(server_url: str, home: Path) -> None:
    with terminal("ask", "--url", server_url, "slowly", home=home) as shown:
        shown.expect(r"word word word")
        shown.type("\x03")
        assert shown.end() == 130
        assert "Traceback" not in shown.seen


def test_a_terminal_is_not_steered_by_the_model(server_url: str, home: Path) -> None:
    with terminal("ask", "--url", server_url, "escape", home=home) as shown:
        assert shown.end() == 0
        assert "\x1b]0;" not in shown.seen
        assert "\x1b[2J" not in shown.seen
        assert "clean" in shown.seen


def test_thinking_is_dimmed_on_a_terminal(server_url: str, home: Path) -> None:
    with terminal("ask", "--url", server_url, "think", home=home) as shown:
        assert shown.end() == 0
        assert shown.seen.startswith("\x1b[2mLet me see.\x1b[0m")
        assert shown.seen.rstrip().endswith("Thought: think")
