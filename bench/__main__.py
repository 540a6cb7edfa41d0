"""`python -m bench`: choose suites, run them one after another, show and keep the rows."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from bench.arithmetic import Row
from bench.load import ROOT
from bench.machine import describe
from bench.report import as_json, save, show_machine, table
from bench.suite import Bench

SUITES = ("cli", "http", "streams", "memory", "engine")
ON_REQUEST = (
    *("state", "compaction", "loop", "tools", "structured"),
    *("deadline", "effort", "python", "data", "interpreter"),
)
"""Suites that run only when they are named: most of them ask real weights for many minutes."""

RESULTS = ROOT / "bench" / "results"


def main() -> int:
    """The exit code: 1 if a suite failed, or with `--strict` if an aim was missed; else 0."""
    options = _options()
    console = Console()
    # In a pipe or a log there is no width to keep to, and wrapped columns are hard to read.
    if not console.is_terminal:
        console = Console(width=200)
    results: dict[str, list[Row]] = {}
    cases: dict[str, list[dict[str, Any]]] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ouzel-bench-", dir=options.scratch) as folder:
        facts = describe(Path(folder))
        show_machine(console, facts)
        for name in options.only or SUITES:
            kept = cases.setdefault(name, [])
            try:
                results[name] = _run(name, options, Path(folder), console, kept)
            except (RuntimeError, OSError, subprocess.SubprocessError, ExceptionGroup):
                # What other suites measured is not lost because one cannot measure.
                failed.append(name)
                console.print(f"[bold red]The suite {name} failed:[/]")
                console.print(traceback.format_exc(), markup=False, highlight=False)
            else:
                console.print(table(name, results[name]))
    command = " ".join(["python -m bench", *sys.argv[1:]])
    path = save(RESULTS, as_json(facts, command, results, cases))
    console.print(f"Kept in {path.relative_to(ROOT)}")
    missed = [row.name for rows in results.values() for row in rows if row.verdict == "missed"]
    console.print(f"{len(missed)} missed: {'; '.join(missed)}" if missed else "No aim missed.")
    if failed:
        console.print(f"Failed: {', '.join(failed)}")
    return 1 if failed or (missed and options.strict) else 0


def _run(
    name: str,
    options: argparse.Namespace,
    folder: Path,
    console: Console,
    cases: list[dict[str, Any]],
) -> list[Row]:
    scratch = folder / name
    scratch.mkdir()
    measure = import_module(f"bench.suite_{name}").measure
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        shown = progress.add_task(name, total=None)

        def tell(text: str) -> None:
            progress.update(shown, description=text)
            if not console.is_terminal:
                print(text, file=sys.stderr, flush=True)

        def log(line: str) -> None:
            if console.is_terminal:
                console.print(line, markup=False, highlight=False)
            else:
                print(line, file=sys.stderr, flush=True)

        bench = Bench(
            quick=options.quick,
            scratch=scratch,
            model=options.model,
            engine_url=options.engine_url,
            engine_key=os.environ.get("OUZEL_ENGINE_KEY"),
            tell=tell,
            log=log,
            step=lambda done, total: progress.update(shown, completed=done, total=total),
            keep=cases.append,
            data=options.data,
            api=options.api,
            at_once=options.at_once,
            limit=options.limit,
            first=options.first,
            kept=options.kept,
        )
        rows: list[Row] = measure(bench)
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=SUITES + ON_REQUEST,
        help=f"run this suite; may be given again; default: {', '.join(SUITES)}",
    )
    parser.add_argument("--quick", action="store_true", help="measure less; rougher numbers")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if an aim was missed")
    parser.add_argument("--model", help="weights for suites that run some; default: the server's")
    parser.add_argument(
        "--engine-url",
        help="measure before this Chat Completions server instead of weights; its key is taken "
        "from OUZEL_ENGINE_KEY",
    )
    parser.add_argument("--scratch", type=Path, help="folder for state; default: the system's")
    cases = parser.add_argument_group("suites of cases (tools, structured, deadline, effort)")
    cases.add_argument("--data", type=Path, help="a file with cases instead of the suite's own")
    cases.add_argument(
        "--api", choices=("responses", "chat"), default="responses", help="for tools; %(default)s"
    )
    cases.add_argument("--at-once", type=int, metavar="N", help="cases under way together")
    cases.add_argument("--limit", type=int, metavar="N", help="so many cases (tools: of each kind)")
    cases.add_argument("--first", type=int, metavar="N", default=0, help="begin at case N, from 0")
    cases.add_argument(
        "--kept", type=Path, metavar="PATH", help="effort: resume this file; default: the commit's"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
