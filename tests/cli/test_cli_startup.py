"""Start-up as it is shown, and first requests that really can be copied."""

from __future__ import annotations

import io
import json
import shlex

import pytest
from rich.console import Console

from ouzel.cli.startup import ConsoleReport, bar, examples, facts
from ouzel.engines.weights import Progress

MB = 1_000_000


def reporting(
    *, terminal: bool = False, with_key: bool = False
) -> tuple[ConsoleReport, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=terminal, highlight=False)
    return ConsoleReport(with_key=with_key, console=console), file


def test_steps_are_lines_where_there_is_no_terminal() -> None:
    report, file = reporting()
    with report:
        report.step("Opening the store")
        report.done()
        report.step("Loading [weights]")
        report.done("all of them")
        assert not report.is_ready
        report.ready("http://127.0.0.1:1/v1", "m", ("o4-mini",))
        assert report.is_ready
    text = file.getvalue()
    assert "\x1b" not in text
    assert "✓ Opening the store\n" in text
    assert "✓ Loading [weights]  all of them\n" in text
    assert "Ouzel listens at http://127.0.0.1:1/v1\n" in text
    assert "serving m  also as o4-mini\n" in text


def test_a_download_is_a_line_for_each_tenth_where_there_is_no_terminal() -> None:
    report, file = reporting()
    with report:
        report.step("Weights")
        for done in range(101):
            report.download(Progress("downloading", done * MB, 100 * MB, 2.5 * MB, 60.0))
        report.download(Progress("verifying", 0, 0))
        report.done()
    lines = file.getvalue().splitlines()
    assert len(lines) == 11 + 1 + 1
    assert lines[5].strip() == "Weights: downloading, 50.0 MB of 100.0 MB, 2.5 MB/s, 1 min 0 s left"
    assert lines[11].strip() == "Weights: verifying"


def test_a_download_is_a_bar_on_a_terminal_and_the_terminal_is_given_back() -> None:
    report, file = reporting(terminal=True)

    def start() -> None:
        with report:
            report.step("Weights")
            report.download(Progress("downloading", 50 * MB, 100 * MB, 2.0 * MB, 25.0))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        start()
    text = file.getvalue()
    assert "50.0 MB of 100.0 MB" in text
    assert "━" in text
    assert text.index("\x1b[?25l") < text.rindex("\x1b[?25h"), "the cursor must come back"
    assert "x" in text.splitlines()[-1]
    assert "Weights" in text.splitlines()[-1]


def test_a_bar_fits_a_narrow_terminal() -> None:
    console = Console(file=io.StringIO(), width=80)
    progress = Progress("downloading", 999 * MB, 64_000 * MB, 99.9 * MB, 650.0)
    lines = console.render_lines(bar("Weights: a-model-with-a-long-name-1.5b-instruct", progress))
    assert len(lines) == 2
    shown = "".join(segment.text for segment in lines[1])
    assert "999.0 MB of 64.0 GB, 99.9 MB/s, 10 min 50 s left" in shown


@pytest.mark.parametrize("phase", ["waiting", "checking", "downloading", "verifying", "done"])
def test_every_phase_has_words(phase: str) -> None:
    assert facts(Progress(phase))  # type: ignore[arg-type]


@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize("model", ["m", 'it\'s "odd" \\ one', "ünï $HOME `x`"])
def test_the_examples_can_be_copied(model: str, with_key: bool) -> None:
    texts = [text for _, text in examples("http://127.0.0.1:8321/v1", model, with_key)]
    words = shlex.split(texts[0])
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:8321/v1/responses"]
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == model
    assert any("$OUZEL_API_KEY" in word for word in words) is with_key
    compile(texts[1], "example", "exec")
    assert repr(model) in texts[1] or json.dumps(model) in texts[1]
    assert ("OUZEL_API_KEY" in texts[1]) is with_key
    assert shlex.split(texts[2])[:2] == ["ouzel", "ask"]


def test_a_long_request_is_not_broken_into_lines() -> None:
    report, file = reporting(terminal=True)
    with report:
        report.ready("http://127.0.0.1:8321/v1", "a-model-with-a-long-name" * 5, ())
    assert any(line.startswith("curl ") and line.endswith("}'") for line in
               file.getvalue().splitlines())  # fmt: skip
