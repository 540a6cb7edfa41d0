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

from rich.console import Console

from bench.arithmetic import Row
from bench.load import ROOT
from bench.machine import describe
from bench.report import as_json, save, show_machine, table
from bench.suite import Bench

SUITES = ("cli", "http", "streams", "memory", "engine")
RESULTS = ROOT / "bench" / "results"


def main() -> int:
    """The exit code: 1 if a suite failed, or with `--strict` if an aim was missed; else 0."""
    options = _options()
    console = Console()
    # In a pipe or a log there is no width to keep to, and wrapped columns are hard to read.
    if not console.is_terminal:
        console = Console(width=200)
    results: dict[str, list[Row]] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ouzel-bench-", dir=options.scratch) as folder:
        facts = describe(Path(folder))
        show_machine(console, facts)
        for name in options.only or SUITES:
            try:
                results[name] = _run(name, options, Path(folder), console)
            except (RuntimeError, OSError, subprocess.SubprocessError):
                # What other suites measured is not lost because one cannot measure.
                failed.append(name)
                console.print(f"[bold red]The suite {name} failed:[/]")
                console.print(traceback.format_exc(), markup=False, highlight=False)
            else:
                console.print(table(name, results[name]))
    path = save(RESULTS, as_json(facts, " ".join(["python -m bench", *sys.argv[1:]]), results))
    console.print(f"Kept in {path.relative_to(ROOT)}")
    missed = [row.name for rows in results.values() for row in rows if row.verdict == "missed"]
    console.print(f"{len(missed)} missed: {'; '.join(missed)}" if missed else "No aim missed.")
    if failed:
        console.print(f"Failed: {', '.join(failed)}")
    return 1 if failed or (missed and options.strict) else 0


def _run(name: str, options: argparse.Namespace, folder: Path, console: Console) -> list[Row]:
    scratch = folder / name
    scratch.mkdir()
    measure = import_module(f"bench.suite_{name}").measure
    with console.status(name) as status:

        def tell(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                print(text, file=sys.stderr, flush=True)

        bench = Bench(
            quick=options.quick,
            scratch=scratch,
            model=options.model,
            engine_url=options.engine_url,
            engine_key=os.environ.get("OUZEL_ENGINE_KEY"),
            tell=tell,
        )
        rows: list[Row] = measure(bench)
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=SUITES, help="run this suite; may be given again"
    )
    parser.add_argument("--quick", action="store_true", help="measure less; rougher numbers")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if an aim was missed")
    parser.add_argument("--model", help="weights for the engine suite; default: the server's")
    parser.add_argument(
        "--engine-url",
        help="engine suite: measure before this Chat Completions server instead of weights; its "
        "key is taken from OUZEL_ENGINE_KEY",
    )
    parser.add_argument("--scratch", type=Path, help="folder for state; default: the system's")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
