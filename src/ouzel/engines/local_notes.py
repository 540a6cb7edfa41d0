"""What was found out about weights, kept from one start of the server to the next.

One small JSON file: what the weights can, and how fast they were. It saves the next start the
requests that found it out, and lets `doctor` tell of it without loading anything. Notes on other
weights, another llama.cpp or another version of the probes are not used. It knows a file and no
engine; a file that cannot be read or written costs only what it would have saved.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ouzel.core.turns import Pace
from ouzel.engines.upstream_probe import Findings

_log = logging.getLogger(__name__)

PROBES: Final = 3
"""Raise it when the probes change, so that old findings are not used."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What is known of some weights in some llama.cpp.

    Args:
        about: which weights and which library; see `about`.
        weights: the file, for people.
        seen_at: seconds since the epoch.
    """

    about: str
    weights: str
    findings: Findings
    pace: Pace
    seen_at: float
    probes: int = PROBES


def about(weights: Path, library: str) -> str:
    """A name for weights as they are on disk now, in this version of the library.

    Raises:
        OSError: there is no such file.
    """
    found = weights.stat()
    return f"{weights.absolute()} {found.st_size} {found.st_mtime_ns} xllamacpp {library}"


def path_of(home: Path) -> Path:
    """Where the notes are, in the server's home."""
    return home / "engine.json"


def read_notes(home: Path) -> Notes | None:
    """The notes of the last start; None where there are none that can be used."""
    try:
        notes = msgspec.json.decode(path_of(home).read_bytes(), type=Notes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        _log.info("What was known of the weights cannot be read: %s", type(error).__name__)
        return None
    return notes if notes.probes == PROBES else None


def write_notes(home: Path, known: str, weights: Path, findings: Findings, pace: Pace) -> None:
    """Keep what was found out; it takes the place of what was kept before."""
    notes = Notes(known, str(weights), findings, pace, time.time())
    path = path_of(home)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(msgspec.json.encode(notes))
        part.replace(path)
    except OSError as error:
        _log.warning("What is known of the weights cannot be kept: %s", error.strerror)
        part.unlink(missing_ok=True)
