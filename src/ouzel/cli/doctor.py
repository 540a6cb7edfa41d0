"""`ouzel doctor`: what the server stands on, and what to do about each problem."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ouzel.cli import output
from ouzel.cli.flags import with_settings
from ouzel.config import SETTINGS, Settings

if TYPE_CHECKING:
    from ouzel.build.finding import Finding

_EPILOG = """Examples:

[bold]ouzel doctor[/bold]

[bold]ouzel doctor --model ./mine.gguf --port 8399[/bold]

It takes the flags of `ouzel serve` and says whether that would start. Exit code 1: it would not."""

_MARKS = {"ok": "green", "note": "yellow", "problem": "bold red"}


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=_EPILOG)(with_settings(doctor, SETTINGS))


def doctor(
    settings: Settings,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check machine, settings, weights and engine.

    Says what to do about each problem, and changes nothing itself.
    """
    from ouzel.build.doctor import examine

    found = list(examine(settings)) if as_json else _show(examine(settings))
    if as_json:
        print(json.dumps(_as_json(settings, found), ensure_ascii=False, indent=2))
    else:
        _show_settings(settings)
        _conclude(found)
    if any(finding.level == "problem" for finding in found):
        raise typer.Exit(1)


def _as_json(settings: Settings, found: list[Finding]) -> dict[str, object]:
    return {
        "ok": not any(finding.level == "problem" for finding in found),
        "findings": [asdict(finding) for finding in found],
        "settings": {
            name: {"value": value, "source": source} for name, value, source in settings.masked()
        },
    }


def _show(findings: Iterable[Finding]) -> list[Finding]:
    """Print each finding as it comes."""
    from rich.text import Text

    console, shown, area = output.out(), [], ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            console.print(Text(f"\n{area.capitalize()}", "bold"))
        mark = {"ok": output.tick(), "note": "!", "problem": "x"}[finding.level]
        line = Text.assemble(
            "  ", (mark, _MARKS[finding.level]), f" {finding.name}: ", output.harmless(finding.text)
        )
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(f"    → {output.harmless(finding.advice)}"), soft_wrap=True)
        shown.append(finding)
    return shown


def _show_settings(settings: Settings) -> None:
    from rich.text import Text

    console = output.out()
    console.print(Text("\nSettings", "bold"))
    rows = settings.masked()
    names, values = max(len(name) for name, *_ in rows), max(len(value) for _, value, _ in rows)
    for name, value, source in rows:
        line = f"  {name:<{names}}  {output.harmless(value):<{min(values, 40)}}  {source}"
        console.print(Text(line, "dim" if source == "default" else ""), soft_wrap=True)


def _conclude(found: list[Finding]) -> None:
    problems = sum(finding.level == "problem" for finding in found)
    console = output.out()
    if problems:
        noun = "problem" if problems == 1 else "problems"
        console.print(f"\n[bold red]{problems} {noun}.[/bold red] The arrows say what to do.")
    else:
        console.print("\n[green]Everything is in place.[/green] Start with: ouzel serve")
