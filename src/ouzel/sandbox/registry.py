"""Which containers there are: one small file for each, found again after any death of the server.

    <home>/containers/<id>/meta.json    owner, spec, times, what the client put there
    <home>/places/<place>/work/         a work folder: what code in a container sees
    <home>/incoming/                    files on their way into one
    <home>/lock                         held by the one server that uses this home

A container names its place. So a work folder can be made ahead, with an interpreter already in it,
and become a container's later. The order of writes is such that a kill in between loses nothing:
what a place held is moved only after the container names both, and places that nobody names are
removed at the next start.

Kernels and cells, this file does not know. Everything here blocks: call it in a thread, for one
container in one at a time.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ouzel.core.errors import StoreError
from ouzel.core.files import ContainerInfo, ContainerSpec
from ouzel.sandbox.container_disk import move_all, remove_all
from ouzel.sandbox.container_names import is_container_id
from ouzel.sandbox.folder import Folder

logger = logging.getLogger(__name__)

FORMAT: Final = 1
LOCK_SECONDS: Final = 5.0
"""How long the lock is waited for: a server that is just ending still holds it."""

_PASSAGE: Final = 0o711 if os.geteuid() == 0 else 0o700
"""As root, code runs as users of their own, which may have to come through to their work folders.
Those are closed to all others, and nobody can list what they come through."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What is kept of a container.

    Args:
        place: its work folder's; empty once it has expired.
        leaving: a place from which its files are being moved; empty but for that moment.
        used: code was run in it.
        puts: names of files that the client put there.
    """

    info: ContainerInfo
    place: str
    leaving: str = ""
    used: bool = False
    puts: frozenset[str] = field(default=frozenset())


class Registry:
    """The containers of one home.

    Args:
        home: made if it is not there, for the user alone.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._containers = home / "containers"
        self._places = home / "places"
        self.incoming = home / "incoming"
        self._lock = -1

    def open(self) -> dict[str, Meta]:
        """Take the home over and find what is in it.

        Raises:
            StoreError: another server has it, or it cannot be written.
        """
        try:
            self._home.mkdir(mode=_PASSAGE, parents=True, exist_ok=True)
            for folder in (self._containers, self.incoming):
                folder.mkdir(mode=0o700, exist_ok=True)
            self._places.mkdir(mode=_PASSAGE, exist_ok=True)
            self._take_lock()
            metas = self._load()
            self._sweep(metas)
        except OSError as error:
            self.close()
            raise StoreError(
                f"The containers' folder {self._home} cannot be used: {error.strerror}."
            ) from error
        return metas

    def close(self) -> None:
        """Let the home go. May be called twice."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def folder(self, place: str) -> Folder:
        """The work folder of a place."""
        return Folder(self._places / place / "work")

    def make_place(self) -> str:
        """A new, empty place. Raises OSError."""
        place = secrets.token_hex(16)
        (self._places / place).mkdir(mode=_PASSAGE)
        self.folder(place).work.mkdir(mode=0o700)
        return place

    def remove_place(self, place: str) -> None:
        """Remove it and all that is in it; nothing may run in it any more. Raises OSError."""
        if place:
            remove_all(self._places / place)

    def save(self, meta: Meta) -> None:
        """Keep it, whole or not at all. Raises OSError."""
        folder = self._containers / meta.info.id
        folder.mkdir(mode=0o700, exist_ok=True)
        temporary = folder / "meta.json.new"
        temporary.write_text(json.dumps(_to_json(meta), ensure_ascii=True))
        temporary.replace(folder / "meta.json")

    def move(self, meta: Meta, place: str) -> Meta:
        """Give a container another place and move its files there. Raises OSError."""
        moving = replace(meta, place=place, leaving=meta.place)
        self.save(moving)
        return self.finish_move(moving)

    def finish_move(self, meta: Meta) -> Meta:
        """Do the rest of a move that was cut short. Raises OSError."""
        old = self.folder(meta.leaving).work
        if old.exists():
            move_all(old, self.folder(meta.place).work)
        moved = replace(meta, leaving="")
        self.save(moved)
        self.remove_place(meta.leaving)
        return moved

    def forget(self, meta: Meta) -> None:
        """Remove a container for good. Raises OSError."""
        # In this order: a place that nobody names is swept later, a name without a place is not.
        remove_all(self._containers / meta.info.id)
        self.remove_place(meta.place)

    def _take_lock(self) -> None:
        descriptor = os.open(self._home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    os.close(descriptor)
                    raise StoreError(
                        f"Another server uses the containers in {self._home}; stop it, or give "
                        "this one another home."
                    ) from None
                time.sleep(0.05)
            except BaseException:
                os.close(descriptor)
                raise
            else:
                self._lock = descriptor
                return

    def _load(self) -> dict[str, Meta]:
        metas = {}
        for folder in self._containers.iterdir():
            if not is_container_id(folder.name):
                continue
            try:
                meta = _from_json(folder.name, json.loads((folder / "meta.json").read_text()))
                if meta.leaving:
                    meta = self.finish_move(meta)
                if meta.place and not self.folder(meta.place).work.is_dir():
                    logger.warning("Container %s: its work folder is gone.", folder.name)
                    meta = replace(meta, place="", info=replace(meta.info, status="expired"))
                    self.save(meta)
            except FileNotFoundError:
                remove_all(folder)  # its creation was cut short before there was anything in it
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning(
                    "Container %s cannot be read (%s); it is left as it is.",
                    folder.name,
                    type(error).__name__,
                )
            else:
                metas[meta.info.id] = meta
        return metas

    def _sweep(self, metas: dict[str, Meta]) -> None:
        """Remove places that nobody names, and files that never became whole."""
        unread = {each.name for each in self._containers.iterdir()} - set(metas)
        named = {meta.place for meta in metas.values()}
        for folder in self._places.iterdir():
            # One that could not be read may name any place.
            if folder.name not in named and not unread:
                remove_all(folder)
        for left in self.incoming.iterdir():
            left.unlink()


def _to_json(meta: Meta) -> dict[str, Any]:
    info = asdict(meta.info)
    del info["id"]
    return {
        "format": FORMAT,
        "info": info,
        "place": meta.place,
        "leaving": meta.leaving,
        "used": meta.used,
        "puts": sorted(meta.puts),
    }


def _from_json(container_id: str, read: dict[str, Any]) -> Meta:
    """Raises KeyError, TypeError, ValueError."""
    if read["format"] != FORMAT:
        raise ValueError("a format of another version")
    info = dict(read["info"])
    spec = dict(info.pop("spec"))
    spec["file_ids"] = tuple(spec["file_ids"])
    place, leaving = str(read["place"]), str(read["leaving"])
    if not all(_is_place(each) for each in (place, leaving) if each):
        raise ValueError("not the name of a place")
    return Meta(
        ContainerInfo(container_id, spec=ContainerSpec(**spec), **info),
        place,
        leaving,
        bool(read["used"]),
        frozenset(read["puts"]),
    )


def _is_place(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")
