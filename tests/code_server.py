"""A real `ouzel serve` whose led model writes the programs that a test gives it, and a census of
the processes that it starts.

The model is the scripted engine; everything else is what a user runs. A client's message names a
program by a word in it. After an error the model writes `AGAIN`, after output it answers and says
what it was told. How code is kept in, this file does not know.
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

import openai
import psutil

from ouzel.sandbox.jail_uids import RANGES
from served import Served, served

CACHE = Path.home() / ".cache" / "ouzel"
AUTO = {"type": "code_interpreter", "container": {"type": "auto"}}
OUTPUTS = ["code_interpreter_call.outputs"]
PATIENCE = 40.0
"""Seconds for what takes one on a quiet machine."""

AGAIN = "print('again', sorted(globals().get('kept', [])), open('kept.txt').read())\n"
"""What is written after an error: tells whether variables and files are still there."""

_CODE = "```python\\n([\\s\\S]*\\n)?$"
_TOLD = {
    "died": "The interpreter died[\\s\\S]*```\\n$",
    "stopped": "It was stopped after[\\s\\S]*```\\n$",
    "nothing": "```output\\n[\\s\\S]*```\\n$",
}


def script(programs: Mapping[str, str]) -> str:
    """A script for the engine: a program for each word that a message may have in it."""
    replies = [
        {"opening": opening, "steps": f"It told me: {told}."} for told, opening in _TOLD.items()
    ]
    replies.insert(0, {"opening": "That failed because$", "steps": " of what it told."})
    replies.insert(1, {"opening": f"That failed because[\\s\\S]*{_CODE}", "steps": AGAIN})
    # The last program of an answer stands at the end of its opening, after what others told.
    replies.insert(
        2, {"opening": f"```output\\n[\\s\\S]*{_CODE}", "match": "never", "steps": "pass"}
    )
    replies += [
        {"match": f"\\b{word}\\b", "opening": _CODE, "steps": code}
        for word, code in programs.items()
    ]
    replies.append({"steps": "You said: {input}"})
    lines = ['tool_style = "guided"', 'thinks = "no"', "context_window = 50000"]
    for reply in replies:
        lines.append("[[reply]]")
        for name, value in reply.items():
            text = json.dumps(value, ensure_ascii=False)
            lines.append(f"steps = [{{ say = {text} }}]" if name == "steps" else f"{name} = {text}")
    return "\n".join(lines)
