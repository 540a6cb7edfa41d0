"""Draws `terminal.svg`: start-up and one question, as a terminal really showed them.

Run it from the checkout: `.venv/bin/python docs/images/terminal.py`. It starts a server with the
default weights on a free port, asks it a question, and stops it.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH, LINES = 100, 45
QUESTION = "Why is the sky blue? Answer in two sentences."
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]|\x1b[=>]|\r(?!\n)")

_PASSING = re.compile("[⠀-⣿━]|^Weights: [^ ]*$")
"""Spinners and bars."""


def run(words: list[str], until: str | None) -> str:
    """What the command shows on a terminal, up to `until` or its end; then it is interrupted."""
    leader, follower = pty.openpty()
    size = {"COLUMNS": str(WIDTH), "LINES": str(LINES), "TERM": "xterm-256color"}
    process = subprocess.Popen(  # noqa: S603  # our own words
        [sys.executable, "-m", "ouzel.cli", *words],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=os.environ | size,
    )
    os.close(follower)
    shown = b""
    try:
        while until is None or until.encode() not in shown:
            shown += os.read(leader, 65536)
    except OSError:  # the end of a terminal whose program has gone
        pass
    if until is not None:
        yielded = shown.decode(errors="replace")
        asked = run(["ask", "--url", _address(yielded), QUESTION], None)
        process.send_signal(2)
        while process.poll() is None:
            time.sleep(0.1)
        return yielded + "\x1b[0m\n$ ouzel ask " + repr(QUESTION) + "\n" + asked
    process.wait()
    return shown.decode(errors="replace")


def _address(shown: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+/v1", shown)
    if found is None:
        raise SystemExit(f"The server did not start:\n{shown}")
    return found.group()


def _final(shown: str) -> str:
    """The text as it stays: lines that were drawn again and again only in their last form."""
    lines = [line.rsplit("\r", 1)[-1] for line in shown.replace("\r\n", "\n").split("\n")]
    kept = [_CONTROL.sub("", line).rstrip() for line in lines]
    return "\n".join(line for line in kept if line and not _PASSING.search(line))


def main() -> None:
    """Write the picture beside this file."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["OUZEL_HOME"] = home
        shown = run(["serve", "--port", "0"], "Stop with Ctrl-C")
    text = _final("$ ouzel serve\n" + shown).replace(str(Path.home()), "~")
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(Text.from_ansi(text))
    drawn = console.export_svg(title="Ouzel")
    # The fonts of whoever looks at it, not ones from a server elsewhere.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    Path(__file__).with_name("terminal.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
