"""The words that every request begins with, read once and kept: in every slot, and on disk.

llama.cpp gives each slot a cache of its own, so a prefix that is read in one has to be read again
in the next. Here it is read once, saved as llama.cpp saves a slot, and restored into the others,
at the next start into all of them. From then on llama.cpp's own cache in memory keeps it: what a
slot drops goes there, and comes back where it fits best. docs/measurements.md, "Fixed prefix".

A saved prefix is used only for the same weights, library, template and words, all of which are in
its name, and only if the file is as it was written. It holds our own words, nothing of a client.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ouzel.core.errors import EngineError, OuzelError
from ouzel.core.turns import Turn
from ouzel.engines.pace import PaceMeter
from ouzel.engines.upstream_client import Client
from ouzel.engines.upstream_failures import read_error
from ouzel.engines.upstream_find import field
from ouzel.engines.wire_turn import Dialect, write_turn

_log = logging.getLogger(__name__)

WITHIN: Final = 600.0
"""Seconds in which a prefix is read; a thousand tokens take twenty on two cores."""

QUICK: Final = 30.0
"""Seconds for saving or restoring one: it is a file of some MB."""

HELD: Final = 0.9
"""Share of the prompt that must come from the cache for a restored prefix to count as there: what
follows it in the turn that made it may be read anew."""

_RESTORED: Final = "restored"
_READ: Final = "read"


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where prefixes are kept, and what for.

    Args:
        folder: the process's `slot_save_path`.
        about: which weights, in which library.
        model: the name to ask for.
        slots: how many there are.
    """

    folder: Path
    about: str
    model: str
    slots: int


async def warm(
    line: Client, shelf: Shelf, turns: Sequence[Turn], dialect: Dialect, meter: PaceMeter
) -> str:
    """Have the prompts of these turns in the slots' caches, and say what that took.

    Where there are several, they share the slots out between them. What goes wrong is logged and
    costs only time later on.

    Args:
        meter: is told how fast prompts were read.
    """
    began = time.monotonic()
    done: list[str] = []
    kept: set[str] = set()
    for number, turn in enumerate(turns):
        mine = [slot for slot in range(shelf.slots) if slot % len(turns) == number]
        if not mine:
            break
        try:
            tokens, how, name = await _warm_one(line, shelf, turn, dialect, mine, meter)
        except OuzelError as error:
            _log.warning("A fixed prefix is not kept: %s", error.message)
        else:
            kept.add(name)
            done.append(f"{tokens} tokens {how}")
    await asyncio.to_thread(_tidy, shelf.folder, kept)
    return f"{', '.join(done) or 'none'}, in {time.monotonic() - began:.1f} s"


async def _warm_one(
    line: Client,
    shelf: Shelf,
    turn: Turn,
    dialect: Dialect,
    slots: Sequence[int],
    meter: PaceMeter,
) -> tuple[int, str, str]:
    """Tokens of the prompt, whether it was restored or read, and the file's name."""
    body = write_turn(replace(turn, max_tokens=1), shelf.model, stream=False, dialect=dialect)
    prompt = field(await line.call("/apply-template", body, within=QUICK), "prompt")
    if not isinstance(prompt, str):
        raise EngineError("The engine does not show its template.")
    name = hashlib.sha256(f"{shelf.about}\0{prompt}".encode()).hexdigest()[:40]
    if await asyncio.to_thread(_whole, shelf.folder, name):
        missing = [s for s in slots if not await _restore(line, s, name)]
        if not missing:
            counts = await _run(line, body, slots[0])
            if counts["cache_n"] >= HELD * _size(counts):
                return _size(counts), _RESTORED, name
        _log.info("A saved prefix is of no use to this engine, and is made anew.")
    counts = await _run(line, body, slots[0])
    meter.prefilled(counts["prompt_n"], counts["prompt_ms"] / 1000)
    part = f"{name}.{os.getpid()}.part"
    saved = await line.call(f"/slots/{slots[0]}?action=save", {"filename": part}, within=QUICK)
    if saved.status != 200:
        raise read_error(saved.status, saved.body, secret=line.secret)
    await asyncio.to_thread(_put_away, shelf.folder, part, name)
    for slot in slots[1:]:
        if not await _restore(line, slot, name):
            raise EngineError(f"Slot {slot} does not take it.")
    return _size(counts), _READ, name


async def _run(line: Client, body: dict[str, Any], slot: int) -> dict[str, Any]:
    """Have the prompt read in this slot; what llama.cpp counted and timed."""
    reply = await line.call("/v1/chat/completions", {**body, "id_slot": slot}, within=WITHIN)
    if reply.status != 200:
        raise read_error(reply.status, reply.body, secret=line.secret)
    timings = field(reply, "timings")
    if not isinstance(timings, dict) or not {"cache_n", "prompt_n", "prompt_ms"} <= set(timings):
        raise EngineError("The engine does not time what it reads.")
    return timings


def _size(counts: dict[str, Any]) -> int:
    return int(counts["cache_n"]) + int(counts["prompt_n"])


async def _restore(line: Client, slot: int, name: str) -> bool:
    path = f"/slots/{slot}?action=restore"
    reply = await line.call(path, {"filename": f"{name}.bin"}, within=QUICK)
    return bool(field(reply, "n_restored"))


def _whole(folder: Path, name: str) -> bool:
    """Whether a saved prefix is there, as it was written."""
    try:
        expected = (folder / f"{name}.sha256").read_text(encoding="ascii")
        with (folder / f"{name}.bin").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == expected
    except (OSError, UnicodeDecodeError):
        return False


def _put_away(folder: Path, part: str, name: str) -> None:
    """Give a file that was just saved its name, and note what is in it.

    Raises:
        EngineError: the disk does not take it.
    """
    path = folder / part
    note = folder / f"{name}.sha256"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        note.unlink(missing_ok=True)  # until both are in place, there is none
        path.replace(folder / f"{name}.bin")
        note.write_text(digest, encoding="ascii")
    except OSError as error:
        raise EngineError(f"It cannot be kept in {folder}: {error.strerror}.") from None


def _tidy(folder: Path, kept: set[str]) -> None:
    """Remove what no one uses any more: other words, other weights, files that were cut short."""
    try:
        for path in folder.iterdir():
            if path.name.partition(".")[0] not in kept or path.suffix == ".part":
                path.unlink(missing_ok=True)
    except OSError as error:
        _log.info("Old prefixes cannot be removed: %s", error.strerror)
