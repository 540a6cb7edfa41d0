"""What came of code, in words for the model that wrote it. Pure.

A small model reads every word of it before it can go on, and loses its thread in long ones: output
is cut in the middle, repetition is folded, of a traceback only what the code itself did is kept,
and a mistake that is often made comes with what helps against it. How code is run, this file does
not know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ouzel.core.files import CellDone

MOST_OUTPUT: Final = 4_000
"""Characters of output that the model is shown: some 1,000 tokens."""

MOST_MESSAGE: Final = 600
"""Characters of an exception's own message."""

MOST_FRAMES: Final = 6
"""Lines of the code that are shown on the way to an exception."""

MOST_NAMES: Final = 20
"""Files, or columns, that are named in a list."""

_SAME: Final = 3
"""Lines in a row that may be alike before they are folded."""

SILENT: Final = "It ran without output. Print what you want to see."
FRESH: Final = (
    "The interpreter was started anew: variables of earlier code are gone, files are kept."
)

_USUAL: Final[Mapping[str, str]] = {
    "np": "import numpy as np",
    "pd": "import pandas as pd",
    "plt": "import matplotlib.pyplot as plt",
    "sp": "import sympy as sp",
    "sympy": "import sympy",
    "math": "import math",
    "datetime": "import datetime",
    "re": "import re",
    "json": "import json",
}


@dataclass(frozen=True, slots=True)
class Around:
    """What is known of the folder in which the code ran.

    Args:
        files: paths of what is there now.
        columns: of tables, by the file's name.
    """

    files: Sequence[str] = ()
    columns: Mapping[str, Sequence[str]] | None = None


def clean(code: str) -> str:
    """The code that a model meant: without the fence or the prompts around it.

    Nothing else is mended: what is wrong with it, Python says best.
    """
    fence = re.search(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", code, re.DOTALL | re.MULTILINE)
    if fence and not _is_code(code[: fence.start()]):
        code = fence[1]
    lines = code.strip("\n").rstrip().split("\n")
    written = [line for line in lines if line.strip()]
    if written and written[0].startswith(">>> "):
        # An interactive session: what does not stand behind a prompt was its output.
        lines = [line[4:] for line in lines if re.match(r"(>>>|\.\.\.)( |$)", line)]
    return "\n".join(lines)


def _is_code(before: str) -> bool:
    """Whether something before a fence may be code, in whose text the fence is then."""
    # Blanks only: `\s` would go over all empty lines again from each of them.
    return bool(re.search(r"^[ \t]*(?:import |from |def |\w+ *=|print\()|[\"']{3}", before, re.M))


def shorten(text: str, most: int = MOST_OUTPUT) -> str:
    """Output with repetition folded and, if it is still long, its middle left out."""
    text = _folded(text)
    if len(text) <= most:
        return text
    head, tail = text[: most * 2 // 3], text[-(most // 3) :]
    # Whole lines, unless a line is very long.
    head = head[: head.rfind("\n") + 1] or head if "\n" in head[-400:] else head
    tail = tail[tail.find("\n") + 1 :] if "\n" in tail[:400] else tail
    left_out = len(text) - len(head) - len(tail)
    return f"{head.rstrip()}\n[... {left_out} characters left out: print less ...]\n{tail}"


def _folded(text: str) -> str:
    lines = [line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]
    kept: list[str] = []
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and lines[end] == lines[start]:
            end += 1
        alike = end - start
        if alike > _SAME and lines[start].strip():
            kept += [lines[start], f"[the same line {alike - 1} more times]"]
        else:
            kept += lines[start:end]
        start = end
    return "\n".join(kept)


_FRAME = re.compile(r"^ {2}(?:Cell In\[(\d+)\], line (\d+)(?: in (.+))?|File .+)$")
_NEXT_ERROR = re.compile(
    r"^(?:The above exception was the direct cause|During handling of the above exception).*$",
    re.MULTILINE,
)


def traceback(whole: str, error: str) -> str:
    """A traceback without what happened in libraries: lines of the code, then the exception.

    Args:
        whole: as IPython writes it without colours, in its plain mode.
        error: its last line.
    """
    lines = _NEXT_ERROR.split(whole)[-1].strip("\n").split("\n")
    frames: list[tuple[str, str, str, str]] = []
    last = -1
    for at, line in enumerate(lines):
        found = _FRAME.match(line)
        if found is None:
            continue
        last = at
        if found[2]:
            source = lines[at + 1].strip() if at + 1 < len(lines) else ""
            frames.append((found[1], found[2], found[3] or "", source))
    if "SyntaxError" in error or "IndentationError" in error or "TabError" in error:
        return _cut("\n".join(line.rstrip() for line in _unnumbered(lines)), MOST_MESSAGE)
    shown = [_frame(frame, frames[0][0]) for frame in _fewer(frames)]
    return "\n".join([*shown, _cut(_message(lines[last + 1 :], error), MOST_MESSAGE)])


def _unnumbered(lines: Sequence[str]) -> list[str]:
    """Where the parser stumbled, with its mark under the place."""
    return [re.sub(r"^ {2}Cell In\[\d+\], line (\d+)$", r"Line \1:", line) for line in lines]


def _frame(frame: tuple[str, str, str, str], cell: str) -> str:
    number, line, function, source = frame
    where = f"Line {line}" if number == cell else f"Line {line} of earlier code"
    return f"{where}{f' in {function}' if function else ''}: {_cut(source, 160)}"


def _fewer(frames: list[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    half = MOST_FRAMES // 2
    return frames if len(frames) <= MOST_FRAMES else frames[:half] + frames[-half:]


def _message(after: Sequence[str], error: str) -> str:
    """The exception's message, which may have several lines, after the last frame's source."""
    first = error.split(":", 1)[0]
    for at, line in enumerate(after):
        if first and line.startswith(first):
            return "\n".join(after[at:]).strip()
    return error.strip()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def hint(error: str, code: str, around: Around) -> str:
    """What helps against a mistake, in a sentence or two; empty if nothing is known."""
    kind = error.split(":", 1)[0].strip()
    if kind == "KeyError":
        return _columns(code, around)
    if kind == "FileNotFoundError":
        return (
            f"Files that are there: {names(around.files)}."
            if around.files
            else "There are no files."
        )
    if kind == "NameError":
        name = re.search(r"name '(\w+)' is not defined", error)
        if name and name[1] in _USUAL:
            return f"Write `{_USUAL[name[1]]}` first."
        return "Define it first; nothing is imported or defined unless your code did so."
    if kind == "ModuleNotFoundError":
        return "It is not installed, and nothing can be installed: there is no network. Do without."
    if kind in ("ConnectionError", "URLError", "gaierror") or "getaddrinfo" in error:
        return "There is no network."
    return ""


def _columns(code: str, around: Around) -> str:
    if not re.search(r"\bpd\b|pandas|read_csv|DataFrame|\bdf\w*\b", code):
        return ""
    tables = around.columns or {}
    named = {name: tables[name] for name in tables if name in code} or tables
    if not named:
        return "Print `df.columns` to see which columns there are."
    return " ".join(f"{file} has the columns {names(found)}." for file, found in named.items())


def names(found: Collection[str]) -> str:
    """A list of names, not endless."""
    shown = [_cut(name, 80) for name in list(found)[:MOST_NAMES]]
    more = len(found) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def tell(output: str, done: CellDone, code: str, around: Around) -> str:
    """What the model is told of a cell.

    Args:
        output: what it wrote, and the value of its last line, in order.
        done: how it ended.
        code: what was run.
    """
    said = shorten(output.strip("\n"))
    told = [FRESH] if done.fresh else []
    if said.strip():
        told.append(said)
    if done.cut:
        told.append("[Output was too much, and its rest was left out: print less.]")
    match done.status:
        case "error":
            told.append(traceback(done.traceback, done.error))
            told.append(hint(done.error, code, around))
        case "interrupted":
            why = done.error.rstrip(".") or "It took too long"
            told.append(f"It was stopped after {done.seconds:.0f} seconds: {why}.")
            told.append("Variables are kept. Do it in a quicker way or in smaller steps.")
        case "died":
            why = done.error.rstrip(".") or "for a reason that is not known"
            told.append(f"The interpreter died: {why}.")
            told.append("It is started anew: variables are gone, files are kept.")
        case "ok":
            if not said.strip() and not done.files:
                told.append(SILENT)
    if done.files:
        told.append(f"Files written: {names([file.path for file in done.files])}.")
    return "\n".join(filter(None, told))
