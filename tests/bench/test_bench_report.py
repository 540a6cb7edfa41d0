"""What is shown and kept is what was measured."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from bench.arithmetic import Aim, Row
from bench.report import as_json, number, save, table
from rich.console import Console

ROWS = [
    Row("fast enough", 812.4, "/s", Aim(">=", 800), 1600.0, 0.508, "a note", (800.0, 824.8)),
    Row("too slow", 0.9, "", Aim(">=", 0.97)),
    Row("only told", 3.0, "ms"),
]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (812.4, "/s", "812/s"),
        (13693.2, "/s", "13,693/s"),
        (0.29812, "ms", "0.298 ms"),
        (0, "", "0"),
        (150, "MB", "150 MB"),
        (0.9996, "", "1.00"),
    ],
)
def test_numbers_for_people(value: float, unit: str, shown: str) -> None:
    assert number(value, unit) == shown


def test_the_table_shows_aim_and_verdict_beside_the_number() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table("http", ROWS))
    lines = {
        line.split("│")[1].strip(): line
        for line in console.export_text().splitlines()
        if line.startswith("│")
    }
    assert "812/s" in lines["fast enough"]
    assert "≥ 800/s" in lines["fast enough"]
    assert "ok" in lines["fast enough"]
    assert "missed" in lines["too slow"]
    assert "ok" not in lines["only told"]


def test_results_are_kept_whole(tmp_path: Path) -> None:
    data = as_json({"cores": "2"}, "python -m bench", {"http": ROWS})
    kept = json.loads(save(tmp_path / "new", data).read_text())
    assert kept["machine"] == {"cores": "2"}
    first, second, _ = kept["suites"]["http"]
    assert first["samples"] == [800.0, 824.8]
    assert [first["verdict"], second["verdict"]] == ["ok", "missed"]
