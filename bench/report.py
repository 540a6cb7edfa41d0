"""Rows -> a table for people and a JSON file for later."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.arithmetic import Row

_RELATIONS = {">=": "≥", "<=": "≤", ">": ">", "<": "<"}


def number(value: float, unit: str) -> str:
    """A number as people read it: three digits that count, and its unit."""
    shown = f"{value:,.0f}" if abs(value) >= 100 or isinstance(value, int) else f"{value:#.3g}"
    return f"{shown} {unit}".strip() if unit != "/s" else f"{shown}/s"


def table(suite: str, rows: Sequence[Row]) -> Table:
    """All rows of one suite."""
    shown = Table(title=suite, title_justify="left", title_style="bold", expand=True)
    shown.add_column("what", ratio=5)
    for heading in ("measured", "aim", "", "baseline", "ratio"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("note", ratio=6, style="dim")
    colours = {"ok": "green", "missed": "bold red", "": ""}
    for row in rows:
        aim = f"{_RELATIONS[row.aim.relation]} {number(row.aim.value, row.unit)}" if row.aim else ""
        shown.add_row(
            row.name,
            number(row.measured, row.unit),
            aim,
            Text(row.verdict, colours[row.verdict]),
            "" if row.baseline is None else number(row.baseline, row.unit),
            "" if row.ratio is None else f"{row.ratio:#.3g}",
            row.note,
        )
    return shown


def show_machine(console: Console, facts: Mapping[str, str]) -> None:
    """What it runs on, in one block."""
    console.print(" · ".join(f"{name} {value}" for name, value in facts.items()), style="dim")


def as_json(
    facts: Mapping[str, str],
    command: str,
    results: Mapping[str, Sequence[Row]],
    cases: Mapping[str, Sequence[Mapping[str, Any]]] = {},
) -> dict[str, Any]:
    """Everything, samples too, and by suite what became of each case."""
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": dict(facts),
        "suites": {
            suite: [{**asdict(row), "verdict": row.verdict} for row in rows]
            for suite, rows in results.items()
        },
        "cases": {suite: list(kept) for suite, kept in cases.items() if kept},
    }


def save(folder: Path, data: Mapping[str, Any]) -> Path:
    """Write the results to a new file in this folder; the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = str(data["at"]).replace(":", "").replace("+0000", "Z")
    path = folder / f"{stamp}.json"
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
