"""How an answer is shown: finished blocks, harmless text, and what is said at its end."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ouzel.cli import output
from ouzel.cli.output import Failed
from ouzel.cli.showing import Markdown, Plain, Silent, conclude, split_blocks, watch

PIECES = st.lists(
    st.sampled_from(
        ["a", "text", "\n", "\n\n", "```", "```python\n", "~~~\n", "  ", "- x\n", "# h\n"]
    )
)


@given(pieces=PIECES)
def test_blocks_are_the_text_again(pieces: list[str]) -> None:
    text = "".join(pieces)
    done, rest = split_blocks(text)
    assert done + rest == text
    # What is finished stays finished: it splits at the same place, whatever follows.
    assert split_blocks(done) == (done, "")
    assert split_blocks(text + "more")[0].startswith(done)


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("one\n\ntwo", "one\n\n"),
        ("one\ntwo", ""),
        ("one\n\ntwo\n\n", "one\n\ntwo\n\n"),
        ("```\na\n\nb", ""),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n"),
        ("````\n```\n\n", ""),
        ("~~~\n```\n\n~~~\n\n", "~~~\n```\n\n~~~\n\n"),
        ("```\n\n``` no end\n\n", ""),
        ("", ""),
        ("\n", "\n"),
    ],
)
def test_a_block_ends_at_a_blank_line_outside_fences(text: str, done: str) -> None:
    assert split_blocks(text) == (done, text[len(done) :])


def rendered(pieces: list[str], *, height: int = 10) -> str:
    file = io.StringIO()
    console = Console(file=file, width=60, height=height, force_terminal=True, color_system=None)
    writer = Markdown(console)
    for piece in pieces:
        writer.text(piece)
    writer.end()
    writer.end()
    return file.getvalue()


def test_an_answer_longer_than_the_screen_is_shown_whole() -> None:
    lines = [f"line{number}" for number in range(100)]
    text = "```\n" + "\n".join(lines) + "\n```\n\nThe end."
    shown = rendered([*text])
    last = shown[shown.rindex("line0 ") if "line0 " in shown else shown.rindex("line0") :]
    assert all(line in last for line in lines)
    assert "The end." in last


def test_markdown_is_harmless_too() -> None:
    assert "\x1b]0;" not in rendered(["\x1b]0;owned\x07text"])


@given(text=st.text())
def test_harmless_text_keeps_what_can_be_read(text: str) -> None:
    clean = output.harmless(text)
    assert all(char in "\t\n" or char.isprintable() or ord(char) > 0x9F for char in clean)
    kept = [char for char in text if char in "\t\n" or ord(char) >= 0x20]
    assert [char for char in kept if not 0x7F <= ord(char) <= 0x9F] == list(clean)


def test_a_pipe_gets_the_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    writer = Plain()
    for piece in ("a\x1b[1m", "", "b"):
        writer.text(piece)
    writer.thinking("never shown")
    writer.end()
    writer.end()
    assert capsys.readouterr().out == "a\x1b[1mb\n"


def test_an_empty_answer_is_an_empty_output(capsys: pytest.CaptureFixture[str]) -> None:
    Plain().end()
    assert capsys.readouterr().out == ""


async def _events(*events: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    for event in events:
        yield event


async def test_the_last_event_holds_the_response() -> None:
    final = await watch(_events({"type": "x"}, {"type": "y", "response": {"id": "r"}}), Silent())
    assert final == {"id": "r"}


@pytest.mark.parametrize(
    "events",
    [[], [{"type": "x"}], [{"type": "error", "message": "Broken."}], [{"response": None}]],
)
async def test_a_stream_without_a_response_is_a_failure(events: list[dict[str, Any]]) -> None:
    with pytest.raises(Failed):
        await watch(_events(*events), Silent())


@pytest.mark.parametrize(
    ("final", "said"),
    [
        ({"status": "completed"}, ""),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "filter"),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "context",
        ),
        ({"status": "incomplete"}, "cut short"),
        ({"status": "cancelled"}, "cancelled"),
    ],
)
def test_endings_are_told_apart(
    final: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    conclude(final)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("error", [{"message": "Gone."}, None])
def test_a_failed_response_is_a_failure(error: dict[str, str] | None) -> None:
    with pytest.raises(Failed, match=r"Gone\.|failed"):
        conclude({"status": "failed", "error": error})


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (1000, "1 kB"), (98_362_432, "98.4 MB"),
        (999_600, "1.0 MB"), (999_960_000, "1.0 GB"), (1_117_320_768, "1.1 GB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min"),
     (-3, "0 s")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text
