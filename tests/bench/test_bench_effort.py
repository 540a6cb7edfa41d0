"""Word problems are read whole, numbers are found, and a run that was interrupted goes on."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from bench.gsm8k import NoProblems, last_number, load
from bench.solving import Solved, kept, write


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("First 3, then 5.\n18", "18"),
        ("It makes $1,234.50.", "1234.50"),
        ("so -7 degrees", "-7"),
        ("**42**", "42"),
        ("\\boxed{9}", "9"),
        ("10.", "10"),
        ("half is .5", "0.5"),
        ("none at all", None),
        ("", None),
    ],
)
def test_the_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


def test_numbers_are_equal_however_they_are_written() -> None:
    assert last_number("18.00") == last_number("18")
    assert last_number("1,000") == Decimal(1000)


def test_both_ways_of_writing_problems(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    lines = [
        {"question": "How many?", "answer": "6 + 6 = 12\n#### 1,012"},
        {"id": "x-1", "problem": "And now?", "answer": "18"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    first, second = load(path)
    assert (first.id, first.question, first.answer) == ("0", "How many?", Decimal(1012))
    assert (second.id, second.question, second.answer) == ("x-1", "And now?", Decimal(18))


@pytest.mark.parametrize(
    "text", ["no json", '{"question": "Why?"}', '{"question": "", "answer": "x"}']
)
def test_without_problems_it_says_where_to_get_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(text)
    for place in (None, tmp_path / "missing.jsonl", path):
        with pytest.raises(NoProblems, match="GSM8K"):
            load(place)


def _solved(way: str, number: str, ended: str = "completed", model: str = "m") -> Solved:
    return Solved(model, way, number, "1", "1", True, 5, 0, 0, 1.0, ended, "1\nü", "abc")


def test_a_run_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    place = tmp_path / "effort.jsonl"
    assert kept(place, "m") == {}
    write(place, _solved("low", "1"))
    write(place, _solved("high", "1"))
    write(place, _solved("low", "2", ended="status 503: not now"))
    write(place, _solved("low", "3", model="another"))
    assert set(kept(place, "m")) == {("low", "1"), ("high", "1")}


def test_a_line_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    place = tmp_path / "effort.jsonl"
    write(place, _solved("low", "1"))
    whole = place.read_bytes()
    place.write_bytes(whole + whole[:40])
    assert set(kept(place, "m")) == {("low", "1")}
    write(place, _solved("low", "2"))
    assert set(kept(place, "m")) == {("low", "1"), ("low", "2")}
    assert len(place.read_text().splitlines()) == 2
