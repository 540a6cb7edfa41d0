"""Where a text speaks of files: by name, by path, or as models write links to them. Pure.

It knows names and characters, nothing of messages and their parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from ouzel.core.files import WORK, ContainerFile
from ouzel.core.items import FileCitation

_BEFORE, _AFTER = r"(?<![\w./-])", r"(?![\w/-]|\.\w)"
"""A name is whole: `a.csv` is not in `data-a.csv`, `b/a.csv` or `a.csv.gz`."""


def places(text: str, files: Sequence[ContainerFile]) -> list[FileCitation]:
    """All places at which the text speaks of the files, in order, and each file at least once.

    A file is named by its path after `sandbox:`, by its path, or by its bare name; of several
    ways at one place the longest counts, of two files of one bare name the later. A bare name
    without a dot may be any word and counts only within a path. A file that the text does not
    name is cited at its end, over no characters.
    """
    by_id = {file.id: file for file in files}
    ways: dict[str, ContainerFile] = {}
    for file in by_id.values():
        ways |= dict.fromkeys(_bare(file.name), file)
    for file in by_id.values():
        ways |= dict.fromkeys(_bare(file.path), file)
        for path in {f"{WORK}/{file.path}", f"{WORK}/{quote(file.path)}"}:
            ways |= {path: file, f"sandbox:{path}": file}
    found = []
    if ways:
        longest_first = sorted(ways, key=len, reverse=True)
        pattern = _BEFORE + "(?:" + "|".join(map(re.escape, longest_first)) + ")" + _AFTER
        for match in re.finditer(pattern, text):
            found.append(_citation(ways[match.group()], match.start(), match.end()))
    named = {each.file_id for each in found}
    unnamed = [file for file in by_id.values() if file.id not in named]
    return [*found, *(_citation(file, len(text), len(text)) for file in unnamed)]


def _bare(name: str) -> tuple[str, ...]:
    """A name as it may stand in a sentence."""
    return (name, f"./{name}") if "." in name.strip(".") else ()


def _citation(file: ContainerFile, start: int, end: int) -> FileCitation:
    return FileCitation(file.container_id, file.id, file.name, start, end)
