"""Which files code finds in its folder: those of the conversation, by names unlike each other.

A file is put into a container once. What is there already under its name stays as it is: code may
have changed it since. How code is run, this file does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from ouzel.core.contracts import Asker
from ouzel.core.contracts_files import Containers, Files
from ouzel.core.errors import NotFound, RequestError
from ouzel.core.files import ContainerFile, Content, FileInfo
from ouzel.core.items import CodeCall, File, Message
from ouzel.sandbox.container_names import tamed_name
from ouzel.tools import code_files
from ouzel.tools.code_files import Listed, Seen
from ouzel.tools.code_settings import Mount

_CHUNK: Final = 1 << 20
_MOST_COMPARED: Final = 64 * 2**20
"""Bytes of a file up to which it is compared with one of its name."""


@dataclass(slots=True)
class Plan:
    """What the code of one request will find.

    Args:
        mounts: files of the client's that have to be there.
        columns: of tables, by the file's name.
        note: all files in words for the model.
    """

    mounts: list[Mount] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)
    note: str = ""


class Mounting:
    """Looks at files, and puts them into containers."""

    def __init__(self, containers: Containers, files: Files) -> None:
        self._containers = containers
        self._files = files

    async def plan(self, container: str, there: bool, given: Sequence[str], asker: Asker) -> Plan:
        """Which files there will be, and what the model should know of them.

        Args:
            container: its id.
            there: it exists; without, it is made later.
            given: ids of files that the tool's settings name.
            asker: whose messages may hold files, too.

        Raises:
            RequestError: a file that the settings name is not there.
        """
        plan = Plan()
        old = await self._containers.files(container, asker.owner) if there else []
        wanted = await self._wanted(container, given, asker)
        at_the_top = {file.name: file for file in old if file.path == file.name}
        new = [info for info, known in wanted if not known and info.name in at_the_top]
        same = {info.id for info in new if await self._same(info, at_the_top[info.name], asker)}
        _name(plan, wanted, set(at_the_top), same)
        listed = []
        for file in old[: code_files.MOST_LISTED]:
            listed.append(await self._look_inside(file, asker.owner))
        brought = {info.id: info for info, _ in wanted}
        names = {file.path for file in old}
        for mount in plan.mounts:
            if mount.name not in names:
                info = brought[mount.file_id]
                room = len(listed) < code_files.MOST_LISTED
                listed.append(await self._look_ahead(info, mount.name, asker.owner, room))
        hidden = max(0, len(old) - code_files.MOST_LISTED)
        plan.note = code_files.note(listed, hidden)
        plan.columns = {each.name: list(each.seen.columns) for each in listed if each.seen.columns}
        return plan

    async def _wanted(
        self, container: str, given: Sequence[str], asker: Asker
    ) -> list[tuple[FileInfo, bool]]:
        """Files in the order in which they are named, each once, and whether code ran since."""
        found: dict[str, tuple[FileInfo, bool]] = {}
        runs = [
            at
            for at, item in enumerate(asker.items)
            if isinstance(item, CodeCall) and item.container_id == container
        ]
        last = runs[-1] if runs else -1
        for index, file_id in enumerate(given):
            try:
                info = await self._files.load(file_id, asker.owner)
            except NotFound as error:
                raise RequestError(
                    f"There is no file with the id '{file_id[:64]}'.",
                    param=f"container.file_ids[{index}]",
                    code="file_not_found",
                ) from error
            found.setdefault(file_id, (info, last >= 0))
        for at, item in enumerate(asker.items):
            parts = item.parts if isinstance(item, Message) and item.role == "user" else ()
            for part in parts:
                if not isinstance(part, File) or not part.file_id or part.file_id in found:
                    continue
                try:
                    info = await self._files.load(part.file_id, asker.owner)
                except NotFound:
                    continue  # deleted or expired since it was said
                found[part.file_id] = (info, at < last)
        return list(found.values())

    async def _same(self, info: FileInfo, file: ContainerFile, asker: Asker) -> bool:
        """Whether a file is in the container already, byte by byte."""
        if info.size != file.size or info.size > _MOST_COMPARED:
            return False
        try:
            ours = await self._files.open(info.id, asker.owner)
        except NotFound:
            return False
        try:
            _, theirs = await self._containers.open(file.container_id, asker.owner, file.id)
        except NotFound:
            ours.close()
            return False
        try:
            for at in range(0, info.size, _CHUNK):
                if await ours.read(at, _CHUNK) != await theirs.read(at, _CHUNK):
                    return False
        except OSError:
            return False
        finally:
            ours.close()
            theirs.close()
        return True

    async def _look_inside(self, file: ContainerFile, owner: str) -> Listed:
        seen = Seen()
        count = code_files.bytes_wanted(file.name, file.size)
        if count:
            try:
                _, content = await self._containers.open(file.container_id, owner, file.id)
                seen = await _look(content, file.name, file.size, count)
            except (NotFound, OSError):
                pass  # gone since it was listed
        return Listed(file.path, file.size, seen)

    async def _look_ahead(self, info: FileInfo, name: str, owner: str, closely: bool) -> Listed:
        seen = Seen()
        count = code_files.bytes_wanted(name, info.size) if closely else 0
        if count:
            try:
                content = await self._files.open(info.id, owner)
                seen = await _look(content, name, info.size, count)
            except (NotFound, OSError):
                pass  # as above
        return Listed(name, info.size, seen)

    async def bring(self, container: str, owner: str, mounts: Sequence[Mount]) -> list[str]:
        """Put files into the container if nothing of their name is there.

        Returns:
            What could not be, a sentence each, for the model.

        Raises:
            NotFound: the container is gone.
            TooLarge: there is no room for a file.
        """
        lost = []
        there = {file.path for file in await self._containers.files(container, owner)}
        for mount in mounts:
            if mount.name in there:
                continue
            try:
                content = await self._files.open(mount.file_id, owner)
            except NotFound:
                lost.append(f"The file {mount.name} was deleted and is not there.")
                continue
            try:
                async with aclosing(_pieces(content)) as pieces:
                    await self._containers.put(container, owner, mount.name, pieces)
            finally:
                content.close()
        return lost


def _name(
    plan: Plan, wanted: Sequence[tuple[FileInfo, bool]], there: set[str], same: set[str]
) -> None:
    """Give each file a name of its own.

    One that was there when code last ran has its name already; one that comes new does not take
    the name of something else that is there.

    Args:
        there: names of what is in the container.
        same: ids of new files that are there already, under their name.
    """
    taken: set[str] = set()
    for info, known in wanted:
        foreign = set() if known or info.id in same else there
        name = tamed_name(info.name, taken | foreign)
        taken.add(name)
        plan.mounts.append(Mount(info.id, name))


async def _look(content: Content, name: str, size: int, count: int) -> Seen:
    try:
        head = await content.read(0, count)
    finally:
        content.close()
    return await asyncio.to_thread(code_files.look, name, size, head)


async def _pieces(content: Content) -> AsyncGenerator[bytes, None]:
    at = 0
    while piece := await content.read(at, _CHUNK):
        at += len(piece)
        yield piece
