"""What the model is told of code that ran."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouzel.core.files import CellDone, ContainerFile
from ouzel.tools.code_results import FRESH, MOST_OUTPUT, SILENT, Around, clean, shorten, tell

PANDAS = """Traceback (most recent call last):
  File ~/env/pandas/base.py:3816 in get_loc
    return self._engine.get_loc(casted_key)
  File pandas/_libs/index.pyx:172 in pandas._libs.index.IndexEngine.get_loc
KeyError: 'Price'

The above exception was the direct cause of the following exception:
Traceback (most recent call last):
  Cell In[2], line 1
    f('Price')
  Cell In[1], line 4 in f
    return df[x]
  File ~/env/pandas/frame.py:4330 in __getitem__
    indexer = self.columns.get_loc(key)
KeyError: 'Price'
"""
SYNTAX = """  Cell In[4], line 1
    print(1
           ^
SyntaxError: incomplete input
"""
DEEP = "Traceback (most recent call last):\n  Cell In[13], line 2\n    r()\n" + (
    "  Cell In[13], line 1 in r\n    def r(): r()\n" * 900 + "RecursionError: too deep\n"
)


def error(error: str, traceback: str) -> CellDone:
    return CellDone("error", error=error, traceback=traceback)


def told(done: CellDone, output: str = "", code: str = "", **around) -> str:
    return tell(output, done, code, Around(**around))


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("print(1)\n", "print(1)"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("Here it is:\n```py\nprint(1)\n```\nThat prints 1.", "print(1)"),
        ("```\nx = 1", "x = 1"),
        (">>> x = 1\n>>> for i in x:\n...     print(i)\n1\n", "x = 1\nfor i in x:\n    print(i)"),
        ("s = '''\n```\na\n```\n'''\nprint(s)", "s = '''\n```\na\n```\n'''\nprint(s)"),
        ("if x:\n    y\n\n", "if x:\n    y"),
        ("", ""),
    ],
)
def test_only_the_wrapping_is_taken_off(code: str, wanted: str) -> None:
    assert clean(code) == wanted
    assert clean(clean(code)) == wanted


def test_many_empty_lines_before_a_fence_take_no_time() -> None:
    """Read on the event loop: with a pattern that goes back, it would run for a quarter hour."""
    assert clean("\n" * 200_000 + "```python\nx = 1\n```") == "x = 1"


@given(st.text(max_size=200), st.integers(1, 60))
def test_output_is_never_longer_than_it_may_be(piece: str, times: int) -> None:
    assert len(shorten(piece * times, 1_000)) <= 1_000 + 80


def test_a_long_output_keeps_its_ends_and_says_what_is_missing() -> None:
    text = "\n".join(f"row {at}" for at in range(5_000))
    short = shorten(text)
    assert short.startswith("row 0\n")
    assert short.endswith("row 4999")
    assert "characters left out" in short
    assert len(short) <= MOST_OUTPUT + 80


def test_repetition_and_progress_bars_are_folded() -> None:
    assert shorten("a\n" * 10 + "b") == "a\n[the same line 9 more times]\nb"
    assert shorten("10%\r20%\r100%\nok") == "100%\nok"


def test_of_a_traceback_only_the_codes_own_lines_are_kept() -> None:
    done = error("KeyError: 'Price'", PANDAS)
    columns = {"data.csv": ["name", "price"]}
    assert told(done, code="df = pd.read_csv('data.csv')", columns=columns).split("\n") == [
        "Line 1: f('Price')",
        "Line 4 of earlier code in f: return df[x]",
        "KeyError: 'Price'",
        "data.csv has the columns name, price.",
    ]
    assert told(done, code="d = {}").endswith("KeyError: 'Price'")


def test_a_syntax_error_keeps_its_mark() -> None:
    assert told(error("SyntaxError: incomplete input", SYNTAX)) == (
        "Line 1:\n    print(1\n           ^\nSyntaxError: incomplete input"
    )


def test_deep_recursion_is_short() -> None:
    assert len(told(error("RecursionError: too deep", DEEP)).split("\n")) < 10


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("FileNotFoundError: [Errno 2] No such file: 'b'", "Files that are there: a.csv, c.txt."),
        ("NameError: name 'pd' is not defined", "Write `import pandas as pd` first."),
        ("NameError: name 'foo' is not defined", "Define it first"),
        ("ModuleNotFoundError: No module named 'x'", "no network"),
    ],
)
def test_frequent_mistakes_come_with_what_helps(message: str, hint: str) -> None:
    assert hint in told(error(message, message), files=["a.csv", "c.txt"])


def test_a_message_of_several_lines_is_kept() -> None:
    whole = (
        "Traceback (most recent call last):\n  Cell In[7], line 1\n    raise\nValueError: a\nb\n"
    )
    assert told(error("ValueError: a", whole)) == "Line 1: raise\nValueError: a\nb"


def test_every_other_end_is_told() -> None:
    assert told(CellDone("ok")) == SILENT
    file = ContainerFile("cfile_1", "cntr_1", "out/a.csv", 1, 0.0)
    assert told(CellDone("ok", files=(file,))) == "Files written: out/a.csv."
    assert told(CellDone("ok", fresh=True), "2\n") == f"{FRESH}\n2"
    assert "print less" in told(CellDone("ok", cut=True), "2\n")
    stopped = told(CellDone("interrupted", error="time is up", seconds=9.7))
    assert "after 10 seconds: time is up." in stopped
    assert "Variables are kept" in stopped
    assert "variables are gone" in told(CellDone("died", error="out of memory"))
