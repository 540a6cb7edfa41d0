"""How long the command line takes to say something: `ouzel --help`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from bench.arithmetic import Aim, Row, median, ratios
from bench.suite import Bench

_HELP = (sys.executable, "-m", "ouzel.cli", "--help")
_NOTHING = (sys.executable, "-c", "pass")


def measure(bench: Bench) -> list[Row]:
    """One row: the median of several starts, in turn with starts of bare Python.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    bench.tell("ouzel --help")
    times = 5 if bench.quick else 21
    _seconds(_HELP)  # the first one writes byte code
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(times):
        theirs.append(_seconds(_NOTHING))
        mine.append(_seconds(_HELP))
    return [
        Row(
            "ouzel --help, median",
            median(mine),
            "s",
            Aim("<", 0.5),
            median(theirs),
            median(ratios(mine, theirs)),
            f"{times} starts; baseline is python -c pass",
            tuple(mine),
        )
    ]


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began
