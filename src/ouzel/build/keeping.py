"""What the command line does with all that is kept: clean it up, hand it over, copy it.

Glue between settings, store and a report. What needs the home for itself says so where a server
has it; the rest works beside one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from ouzel.build.home import DATABASE, FILES, HomeError, HomeTaken, claimed
from ouzel.build.report import Report
from ouzel.config import Settings
from ouzel.config.declaring import CONFIG_FILE
from ouzel.core.errors import OuzelError
from ouzel.store import FileLimits, open_files, open_store
from ouzel.store.archive import Counted, export, new_file
from ouzel.store.archive_reading import import_archive
from ouzel.store.backup import BackedUp, back_up
from ouzel.store.blobs import Blobs, explain
from ouzel.store.files_check import expired_files, unnamed, without_bytes
from ouzel.store.migrate import check_version
from ouzel.store.retention import Removed, Retention
from ouzel.store.retiring import DAY
from ouzel.store.sealing_keys import KEYS_FILE
from ouzel.store.sqlite import SqliteFile

__all__ = [
    "BackedUp",
    "Cleaned",
    "Counted",
    "back_up_home",
    "clean_up",
    "export_owner",
    "import_owner",
]

COPIED: Final = (CONFIG_FILE, KEYS_FILE, "catalogue.toml")
"""Files of a home that a copy of it needs, too."""

_TELL_EVERY: Final = 0.5
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a clean-up has done, or would do.

    Args:
        removed: what and how much, by kind; kinds of which there was nothing are there, too.
        before, after: bytes of the database on disk.
        free: bytes of it that nothing is in.
        notes: what was left to others, or could be done besides.
    """

    removed: tuple[Removed, ...]
    before: int
    after: int
    free: int
    notes: tuple[str, ...]


def clean_up(
    settings: Settings, report: Report, *, dry_run: bool, vacuum: bool, orphans: bool
) -> Cleaned:
    """Delete what is old, and what was left over.

    Args:
        dry_run: only say what would be deleted.
        vacuum: write the database anew.
        orphans: look through all files for bytes without a name, and names without bytes.

    Raises:
        HomeTaken: this needs a home that no server uses.
        OuzelError: it could not be done.
    """
    file = _database(settings)
    with ExitStack() as stack:
        alone = _alone(stack, settings, needed=vacuum or orphans)
        removed: dict[str, Removed] = {
            kind: Removed(kind, 0, 0) for kind in ("responses", "batches", "leftovers")
        }
        retention = stack.enter_context(closing(Retention(file)))
        before = retention.disk_bytes()
        telling = _Telling(report)
        report.step("Looking for what is old" if dry_run else "Deleting what is old")
        for step in _steps(settings, retention, dry_run):
            _count(removed, step, telling)
        report.done()
        if alone:
            for step in _files(settings, file, report, dry_run=dry_run, orphans=orphans):
                _count(removed, step, telling)
        if not dry_run:
            _tidy(retention, report, telling, vacuum=vacuum)
        return Cleaned(
            tuple(removed.values()),
            before,
            retention.disk_bytes(),
            retention.free_bytes(),
            tuple(_notes(settings, retention, alone=alone)),
        )


def export_owner(settings: Settings, report: Report, owner: str, target: Path) -> Counted:
    """Write an archive of all that an owner has. Raises OuzelError."""
    file = _database(settings)
    blobs = Blobs(settings.home / FILES, 0)
    telling = _Telling(report)
    report.step(f"Exporting what {owner} has")
    with new_file(target) as stream:
        counted = export(
            file,
            blobs,
            owner,
            stream,
            telling.counted,
            version=version("ouzel"),
        )
        if not counted.done:
            raise OuzelError(f"{owner} has nothing here; no archive was written.")
    report.done()
    return counted


def import_owner(
    settings: Settings, report: Report, source: Path, owner: str | None
) -> tuple[str, Counted]:
    """Take an archive in; all of it, or nothing. Returns the owner, and what was taken.

    Raises:
        HomeTaken: a server uses the home.
        OuzelError: it could not be done.
    """
    with source.open("rb") as stream, claimed(settings.home):
        telling = _Telling(report)
        report.step(f"Importing {source.name}")
        asyncio.run(_made_ready(settings))
        file = SqliteFile(settings.home / DATABASE)
        file.make()
        blobs = Blobs(settings.home / FILES, FileLimits().reserve)
        taken = import_archive(
            file,
            blobs,
            stream,
            owner,
            telling.counted,
        )
        report.done()
        return taken


def back_up_home(settings: Settings, report: Report, target: Path) -> BackedUp:
    """Copy the home into a new folder. Raises OuzelError."""
    if not (settings.home / DATABASE).exists():
        raise HomeError(f"There is nothing to back up at {settings.home}.")
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise OuzelError(f"{target} is there already; choose a new or an empty folder.")
    if target.resolve().is_relative_to(settings.home.resolve()):
        raise OuzelError("A copy within the home would be lost with it; choose another folder.")
    report.step(f"Backing up {settings.home}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, and there in one stroke once it is whole.
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            file = SqliteFile(settings.home / DATABASE)
            file.make()
            blobs, copies = Blobs(settings.home / FILES, 0), Blobs(draft / FILES, 0)
            done = back_up(file, blobs, draft / DATABASE, copies, _Telling(report).part)
            _copy_rest(settings.home, draft)
            draft.replace(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        raise explain(error, f"write {target}") from error
    report.done()
    return done


class _Telling:
    """Tells the report how far it is, twice a second at most: into a log each goes as a line."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._next = time.monotonic() + _TELL_EVERY

    def counted(self, kind: str, done: int) -> None:
        """So many of a kind are done."""
        self.part(f"{done:,} {kind}", 0, 0)

    def part(self, text: str, done: int, total: int) -> None:
        """So much of what the text says is done."""
        if time.monotonic() >= self._next:
            self._report.advance(text, done, total)
            self._next = time.monotonic() + _TELL_EVERY


def _database(settings: Settings) -> SqliteFile:
    file = SqliteFile(settings.home / DATABASE)
    check_version(file)
    return file


def _alone(stack: ExitStack, settings: Settings, *, needed: bool) -> bool:
    """Have the home if nobody else has it. Raises HomeTaken if it is needed and taken."""
    try:
        stack.enter_context(claimed(settings.home))
    except HomeTaken:
        if needed:
            raise HomeTaken(
                f"A server runs on {settings.home}: --vacuum would make it wait, and --orphans "
                "could take files that it is just writing. Stop it first."
            ) from None
        return False
    return True


def _steps(settings: Settings, retention: Retention, dry_run: bool) -> Iterator[Removed]:
    yield from retention.leftovers(delete=not dry_run)
    if settings.keep_days:
        before = time.time() - settings.keep_days * DAY
        yield from retention.expired(before) if dry_run else retention.expire(before)


def _files(
    settings: Settings, file: SqliteFile, report: Report, *, dry_run: bool, orphans: bool
) -> Iterator[Removed]:
    report.step("Looking at files")
    yield from expired_files(file, time.time())
    if not dry_run:
        asyncio.run(_made_ready(settings))
    if orphans:
        blobs = Blobs(settings.home / FILES, 0)
        yield from unnamed(file, blobs, delete=not dry_run)
        yield from without_bytes(file, blobs, delete=not dry_run)
    report.done()


async def _made_ready(settings: Settings) -> None:
    """As a server does when it starts: the database at this version, leftovers and expired files
    away."""
    store = open_store(settings.home / DATABASE)
    try:
        files = open_files(store, settings.home / FILES)
        try:
            await files.sweep()
            await files.expire()
        finally:
            await files.close()
    finally:
        await store.close()


def _tidy(retention: Retention, report: Report, telling: _Telling, *, vacuum: bool) -> None:
    if vacuum:
        report.step("Writing the database anew")
        retention.vacuum()
    else:
        report.step("Giving space back")
        for free in retention.shrink(0):
            telling.part(f"{free / 1e6:.1f} MB to go", 0, 0)
        # A reader or a writer may be in the way for a moment.
        for _ in range(50):
            if retention.fold():
                break
            time.sleep(0.02)
    report.done()


def _notes(settings: Settings, retention: Retention, *, alone: bool) -> Iterator[str]:
    if not alone:
        yield "A server runs here: it deletes expired files by itself, so they were left to it."
    if not settings.keep_days:
        yield "keep_days is 0: responses and batches are kept for ever."
    if not retention.shrinks():
        yield (
            "An older version made this database: `ouzel gc --vacuum`, once, takes out what was "
            "deleted by it, and lets free space be given back from then on."
        )


def _count(removed: dict[str, Removed], step: Removed, telling: _Telling) -> None:
    so_far = removed.get(step.kind, Removed(step.kind, 0, 0))
    done = Removed(step.kind, so_far.count + step.count, so_far.size + step.size)
    removed[step.kind] = done
    telling.counted(done.kind, done.count)


def _copy_rest(home: Path, draft: Path) -> None:
    """Keys and settings, for their owner's eyes only. Raises OSError."""
    for name in COPIED:
        if (home / name).is_file():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(draft / name, flags, 0o600), "wb") as copy:  # noqa: PTH123
                copy.write((home / name).read_bytes())
