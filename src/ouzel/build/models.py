"""The catalogue for the command line: list it, and pull from it.

Glue between the settings and `engines.weights`, so that `cli` needs to know neither.
"""

from __future__ import annotations

from pathlib import Path

from ouzel.build.machine import look
from ouzel.config import Settings
from ouzel.engines.weights import Entry, OnProgress, Progress, Row, load_catalogue, pull, rows

__all__ = ["Entry", "Progress", "Row", "fetch", "find", "list_models"]


def list_models(settings: Settings) -> list[Row]:
    """All weights of the catalogue, as they are on this machine.

    Raises:
        WeightsError: the user's own catalogue is not right.
    """
    return rows(load_catalogue(settings.home), settings.cache, look().memory)


def find(settings: Settings, name: str | None) -> Entry:
    """The catalogue's entry of this name or alias; the one that would be served for None.

    Raises:
        WeightsError: there is none.
    """
    catalogue = load_catalogue(settings.home)
    return catalogue.find(name or settings.model or catalogue.default.name)


def fetch(settings: Settings, entry: Entry, on_progress: OnProgress) -> Path:
    """Bring an entry's weights to disk and verify them; see `engines.weights.pull`.

    Raises:
        WeightsError: they cannot be fetched, or are not what they should be.
    """
    return pull(entry, settings.cache, on_progress)
