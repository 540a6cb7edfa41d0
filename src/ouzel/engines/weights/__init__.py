"""Weights: which there are, how they come to disk, and whether what lies there can be served.

    catalogue      names, sources and facts, read from catalogue.toml
    pull           an entry -> verified files on disk (progress, hub, wheels, pip_download, disk)
    resolve        what a user typed -> a file that an engine can open (gguf)
    listing        what the catalogue looks like on this machine

Importing this is quick: the Hub's library and file locks are only loaded by a pull.
"""

from ouzel.engines.weights.catalogue import (
    Catalogue,
    Entry,
    Score,
    UnknownModel,
    WeightsFile,
    load_catalogue,
    read_catalogue,
)
from ouzel.engines.weights.disk import readable
from ouzel.engines.weights.gguf import Header, check_complete, read_header
from ouzel.engines.weights.listing import Fit, OnDisk, Row, fits, on_disk, rows
from ouzel.engines.weights.progress import OnProgress, Progress
from ouzel.engines.weights.pull import pull
from ouzel.engines.weights.resolve import NotPulled, ResolvedModel, resolve

__all__ = [
    "Catalogue",
    "Entry",
    "Fit",
    "Header",
    "NotPulled",
    "OnDisk",
    "OnProgress",
    "Progress",
    "ResolvedModel",
    "Row",
    "Score",
    "UnknownModel",
    "WeightsFile",
    "check_complete",
    "fits",
    "load_catalogue",
    "on_disk",
    "pull",
    "read_catalogue",
    "read_header",
    "readable",
    "resolve",
    "rows",
]
