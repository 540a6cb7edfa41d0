"""`ouzel chat` against a real server: memory, commands, Ctrl-C, line editing, piped scripts."""

from __future__ import annotations

import json
import re
import stat
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from terminals import run, run_process, terminal

from ouzel.cli.chat import Conversation
from ouzel.cli.client import Server


def talk(server_url: str, home: Path, *lines: str) -> tuple[int, str, str]:
    done = run("chat", "--url", server_url, home=home, stdin="\n".join(lines).encode())
    return done.code, done.out, done.err


def test_a_piped_conversation_answers_line_by_line(server_url: str, home: Path) -> None:
    assert talk(server_url, home, "one", "", "two") == (0, "You said: one\nYou said: two\n", "")
    done = run_process("chat", "--url", server_url, home=home, stdin="ü\n/quit\n".encode())
    assert (done.code, done.out, done.err) == (0, "You said: ü\n", "")


def test_each_turn_continues_the_one_before(
    server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    talked = Conversation(Server(server_url), None, "Be kind.", plain=True)
    talked.connect()
    talked.say("one")
    first = kept(server_url, talked.previous)
    talked.say("two")
    second = kept(server_url, talked.previous)
    talked.forget()
    talked.say("three")
    third = kept(server_url, talked.previous)
    assert capsys.readouterr().out == "You said: one\nYou said: two\nYou said: three\n"
    assert (first["previous_response_id"], third["previous_response_id"]) == (None, None)
    assert second["previous_response_id"] == first["id"]
    assert second["instructions"] == "Be kind."
    # Counted by the engine: it was shown the first turn, too.
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    assert third["usage"]["input_tokens"] == first["usage"]["input_tokens"]


def kept(server_url: str, response_id: str | None) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server_url}/responses/{response_id}", timeout=30) as reply:
        return json.load(reply)


def test_commands(server_url: str, home: Path, tmp_path: Path) -> None:
    target = tmp_path / "talk.md"
    code, out, err = talk(
        server_url,
        home,
        "/help",
        "/system Be brief.",
        "/system none",
        "/model",
        "/model o4-mini",
        "hello",
        "//slash",
        f"/save {target}",
        "/new",
        "/quit",
        "never said",
    )
    assert code == 0
    assert out == "You said: hello\nYou said: /slash\n"
    assert "/save" in err
    assert "Instructions: Be brief." in err
    assert "Instructions: none" in err
    assert re.search(r"Talking with scripted; also served: .*o4-mini", err)
    assert "Talking with o4-mini." in err
    assert "A new conversation." in err
    assert target.read_text() == (
        "## You\n\nhello\n\n## o4-mini\n\nYou said: hello\n\n"
        "## You\n\n/slash\n\n## o4-mini\n\nYou said: /slash\n"
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/nope", "There is no command /nope"),
        ("/model nope", "nope is not served"),
        ("/save", "Say where"),
        ("/save /", "exists"),
        ("/save /no/such/folder/x", "No such file"),
        ("/save {home}/user.toml", "exists"),
        ("die", "The engine went away."),
    ],
)
def test_a_piped_conversation_ends_at_the_first_failure(
    server_url: str, home: Path, line: str, says: str
) -> None:
    (home / "user.toml").write_text("kept")
    code, out, err = talk(server_url, home, line.format(home=home), "more")
    assert code == 1
    assert says in err
    assert "more" not in out
    assert (home / "user.toml").read_text() == "kept"


def test_several_lines_between_quotes_are_one(server_url: str, home: Path) -> None:
    code, out, _ = talk(server_url, home, '"""', "one", "", "two", '"""', "three")
    assert (code, out) == (0, "You said: one\n\ntwo\nYou said: three\n")


def test_no_server_is_said_before_anything_is_typed(home: Path) -> None:
    done = run("chat", "--url", "http://127.0.0.1:9", home=home, stdin=b"hi")
    assert done.code == 1
    assert "ouzel serve" in done.err


def test_ctrl_c_stops_an_answer_and_the_talk_goes_on(server_url: str, home: Path) -> None:
    with terminal("chat", "--plain", "--url", server_url, home=home) as shown:
        shown.expect("you> ")
        shown.type("slowly\n")
        shown.expect("word word word")
        shown.type("\x03")
        shown.expect("Stopped; this exchange is not part")
        shown.expect("you> ")
        shown.type("still there?\n")
        shown.expect(r"You said: still there\?")
        shown.expect("you> ")
        shown.type("half a line")
        shown.expect("half a line")
        shown.interrupt("Ctrl-D leaves")
        shown.expect("you> ")
        shown.type("/nope\n")
        shown.expect("There is no command")
        shown.expect("you> ")
        shown.type("\x04")
        assert shown.end() == 0
        assert "Traceback" not in shown.seen


def test_history_is_kept_for_its_owner_alone(server_url: str, home: Path) -> None:
    with terminal("chat", "--url", server_url, home=home) as shown:
        shown.expect("you> ")
        shown.type("remember me\n")
        shown.expect("You said")
        shown.expect("you> ")
        shown.type("\x04")
        assert shown.end() == 0
    history = home / ".ouzel" / "chat_history"
    assert "remember me" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with terminal("chat", "--url", server_url, home=home) as shown:
        shown.expect("you> ")
        shown.type("\x1b[A\n")  # arrow up
        shown.expect("You said: remember me")
        shown.expect("you> ")
        shown.type("\x04")
        assert shown.end() == 0


def test_markdown_is_rendered_on_a_terminal(server_url: str, home: Path) -> None:
    with terminal("chat", "--url", server_url, home=home) as shown:
        shown.expect("you> ")
        shown.type("markdown\n")
        shown.expect("you> ")
        shown.type("/quit\n")
        assert shown.end() == 0
    assert "A title" in shown.seen
    assert "**bold**" not in shown.seen
    assert "```" not in shown.seen
