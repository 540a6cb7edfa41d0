"""One container in memory: what is kept of it, and who works with it at this moment.

This file does not know who asks, nor how code is run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, ParamSpec, TypeVar

from ouzel.core.errors import NotFound, StoreError
from ouzel.core.files import ContainerFile, ContainerInfo
from ouzel.sandbox.container_names import file_id
from ouzel.sandbox.folder import Folder, Found
from ouzel.sandbox.registry import Meta, Registry

GIGABYTES: Final = {"1g": 1, "4g": 4, "16g": 16, "64g": 64}

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Record:
    """A container that is there.

    Args:
        turn: held by the cell that runs; those that wait for it come in order.
        disk: held while its files are looked at or moved, and while `meta` is being kept.
        users: calls that are under way; it does not expire meanwhile.
        gone: it was deleted or has expired; nothing is to be begun in it.
        unsaved: it was used since `meta` was kept.
        brought: marks of files as the client put them there, so that they are not taken for
            what a cell left.
        pictures: number of the last picture that was given a name.
    """

    meta: Meta
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    disk: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    gone: bool = False
    unsaved: bool = False
    brought: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    pictures: int = 0

    @property
    def info(self) -> ContainerInfo:
        """As it is told to others."""
        return self.meta.info

    @property
    def memory(self) -> int:
        """Bytes that code in it may use."""
        return GIGABYTES[self.info.spec.memory] * 2**30

    def overdue(self, now: float) -> bool:
        """Whether it has not been used for so long that it expires."""
        idle = now - self.info.last_active_at
        return not self.users and idle > self.info.spec.idle_minutes * 60

    def touch(self) -> None:
        """It is being used."""
        now = time.time()
        self.meta = replace(self.meta, info=replace(self.meta.info, last_active_at=now))
        self.unsaved = True

    def folder(self, registry: Registry) -> Folder:
        """Its work folder. Raises NotFound if it was deleted or has expired meanwhile."""
        if self.gone:
            raise not_found(self.info.id)
        return registry.folder(self.meta.place)

    def file(self, found: Found, media: str) -> ContainerFile:
        """A file of its, as others are told of it."""
        return ContainerFile(
            file_id(self.info.id, found.path),
            self.info.id,
            found.path,
            found.size,
            # Code can give its files any time.
            min(max(found.changed_at, 0.0), time.time()),
            "user" if found.path in self.meta.puts else "assistant",
            media,
        )

    async def save(self, registry: Registry) -> None:
        """Keep what is kept of it; the caller holds `disk`. Raises StoreError."""
        if not self.gone:
            self.unsaved = False
            await to_the_end(registry.save, self.meta)


def not_found(container_id: str) -> NotFound:
    """The same answer for one that is not there and one that is somebody else's."""
    shown = container_id[:64]
    return NotFound(
        f"No container with the id '{shown}' was found.", param="container_id", code="not_found"
    )


async def to_the_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run this in a thread; who is cancelled meanwhile still waits for its end.

    Raises StoreError where it raises an OSError other than FileNotFoundError.
    """
    task = asyncio.create_task(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that nobody is warned of it
        raise
    except (FileNotFoundError, IsADirectoryError):
        raise
    except OSError as error:
        raise StoreError(f"A container's files could not be used: {error.strerror}.") from error
