"""The tool `code_interpreter`: the model writes Python, a container runs it.

A conversation keeps its container as long as that lives; one is made when code first runs. Files
of the conversation are put into it by name before the code sees them. How code is kept in, where
files lie, and how the model is brought to write code, this file does not know.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from ouzel.core.contracts import Asker, Invocation, Prepared, Stage, ToolOutcome
from ouzel.core.contracts_files import Containers, Files
from ouzel.core.errors import (
    Conflict,
    NotFound,
    RequestError,
    StoreError,
    ToolError,
)
from ouzel.core.files import CellDone, CellPicture, CellText, ContainerSpec, MemoryLimit
from ouzel.core.items import CodeCall, Item, Logs, Picture, new_id
from ouzel.core.request import CustomTool, HostedTool
from ouzel.tools import code_results, code_settings
from ouzel.tools.code_mounting import Mounting
from ouzel.tools.code_settings import Ready

MOST_LOGS: Final = 100_000
"""Characters of output that a client is given of one call."""

MOST_PICTURES: Final = 8
MOST_PICTURE: Final = 4_000_000
"""Pictures of one call that a client is given as such, and the bytes of each; all of them are
files in the container besides."""

MOST_LEFT: Final = 32
"""Files that the answer refers to after one call."""

_MOST_PLACES: Final = 1024

PYTHON: Final = CustomTool(
    "python",
    "Runs Python for exact calculation, data and plots. Print what you want to see; files are in "
    "the current folder.",
    language="python",
)


@dataclass(slots=True)
class _Place:
    """What is known of a container while the server runs.

    Args:
        mounted: ids of files that were put into it.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    mounted: set[str] = field(default_factory=set)


class CodeInterpreter:
    """Runs Python in containers.

    Args:
        containers: where code runs.
        files: where files of clients are.
        memory_mb: most memory of a container, in MiB, to refuse more at once; None if not known.
    """

    type = "code_interpreter"
    id_prefix = "ci"

    def __init__(
        self, containers: Containers, files: Files, *, memory_mb: int | None = None
    ) -> None:
        self._containers = containers
        self._files = files
        self._memory_mb = memory_mb
        self._mounting = Mounting(containers, files)
        self._places: OrderedDict[str, _Place] = OrderedDict()

    def offer(self, asked: HostedTool) -> Sequence[CustomTool]:
        """One tool that takes a program; its settings were read by `prepare`."""
        return [PYTHON]

    async def prepare(self, asked: HostedTool, asker: Asker) -> Prepared:
        """Choose the container, and see which files there are.

        Raises:
            NotFound: there is no such container.
            RequestError: it has expired, a file is not there, or the settings are wrong.
        """
        wanted = code_settings.read(asked.settings, self._memory_mb).container
        given: Sequence[str] = ()
        memory: MemoryLimit = "1g"
        if isinstance(wanted, str):
            container, there = await self._named(wanted, asker.owner), True
        else:
            given, memory = wanted.file_ids or (), wanted.memory_limit or "1g"
            used = await self._used(asker, wanted.memory_limit)
            container, there = used or new_id("cntr"), used is not None
        found = await self._mounting.plan(container, there, given, asker)
        ready = Ready(container, memory, found.mounts, found.columns)
        return Prepared(HostedTool(self.type, code_settings.write(ready)), found.note)

    async def _named(self, container_id: str, owner: str) -> str:
        try:
            info = await self._containers.load(container_id, owner)
        except NotFound as error:
            raise NotFound(
                f"There is no container with the id '{container_id[:64]}'.",
                param="container",
                code="container_not_found",
            ) from error
        if info.status != "running":
            raise RequestError(
                f"The container '{container_id}' has expired; make another.",
                param="container",
                code="container_expired",
            )
        return container_id

    async def _used(self, asker: Asker, memory: MemoryLimit | None) -> str | None:
        """The container in which this conversation last ran code, if it still can."""
        calls = [item.container_id for item in asker.items if isinstance(item, CodeCall)]
        if not calls:
            return None
        try:
            info = await self._containers.load(calls[-1], asker.owner)
        except NotFound:
            return None
        fits = memory is None or info.spec.memory == memory
        return info.id if fits and info.status == "running" else None

    def begin(self, call: Invocation) -> Item:
        """The code, as it will be run."""
        container = code_settings.ready(call.tool.settings).container
        code = code_results.clean(call.arguments)
        return CodeCall(call.id, container, code, status="in_progress")

    async def run(self, call: Invocation) -> AsyncGenerator[Stage | ToolOutcome, None]:
        """Run a cell; what it raised is an outcome, not an error of the tool.

        Raises:
            ToolError: it could not be run.
        """
        began = time.monotonic()
        ready = code_settings.ready(call.tool.settings)
        code = code_results.clean(call.arguments)
        said = _Said()
        try:
            lost = await self._settle(ready, call.owner)
            yield Stage("interpreting")
            # Code that does not heed an interrupt takes some seconds to be stopped, and what came
            # of it is lost if that is cut off itself.
            left = call.within - (time.monotonic() - began)
            within = max(1.0, left - min(4.0, left / 2))
            cell = self._containers.run(ready.container, call.owner, code, within)
            async with aclosing(cell) as events:
                async for event in events:
                    said.take(event)
            done = said.done
            assert done is not None  # noqa: S101  # the last event of every cell
            around = await self._around(ready, call.owner, done)
        except NotFound as error:
            raise ToolError("The container is gone, and its files with it.") from error
        except (RequestError, StoreError) as error:
            raise ToolError(f"The code could not be run: {error.message}") from error
        told = "\n".join((*lost, code_results.tell(said.text, done, code, around)))
        item = CodeCall(
            call.id,
            ready.container,
            code,
            said.outputs(done),
            told,
            # It ran and raised: that is complete. It was stopped or died: it is not.
            "completed" if done.status in ("ok", "error") else "incomplete",
        )
        yield ToolOutcome(told, done.status != "ok", item, done.files[-MOST_LEFT:])

    async def _settle(self, ready: Ready, owner: str) -> list[str]:
        """Make the container if need be, and put files into it; what could not be, in words."""
        place = self._place(ready.container)
        async with place.lock:
            try:
                info = await self._containers.load(ready.container, owner)
            except NotFound:
                # It may have been there, and been deleted since.
                place.mounted.clear()
                spec = ContainerSpec(memory=ready.memory)
                try:
                    await self._containers.create(owner, spec, ready.container)
                except Conflict as error:  # someone else's
                    raise NotFound("No such container.") from error
            else:
                if info.status != "running":
                    raise NotFound("The container has expired.")
            wanted = [mount for mount in ready.mounts if mount.file_id not in place.mounted]
            if not wanted:
                return []
            lost = await self._mounting.bring(ready.container, owner, wanted)
            place.mounted |= {mount.file_id for mount in wanted}
            return lost

    def _place(self, container_id: str) -> _Place:
        place = self._places.setdefault(container_id, _Place())
        self._places.move_to_end(container_id)
        while len(self._places) > _MOST_PLACES:
            self._places.popitem(last=False)
        return place

    async def _around(self, ready: Ready, owner: str, done: CellDone) -> code_results.Around:
        if done.status != "error":
            return code_results.Around()
        files = await self._containers.files(ready.container, owner)
        columns: Mapping[str, Sequence[str]] = ready.columns
        return code_results.Around([file.path for file in files], columns)


class _Said:
    """What a cell says, for the client and for the model."""

    def __init__(self) -> None:
        self.done: CellDone | None = None
        self._texts: list[str] = []
        self._shown: list[Logs | Picture] = []
        self._logs: list[str] = []
        self._room = MOST_LOGS
        self._pictures = 0

    @property
    def text(self) -> str:
        """All that it wrote."""
        return "".join(self._texts)

    def take(self, event: CellText | CellPicture | CellDone) -> None:
        """The next thing that it says."""
        match event:
            case CellText():
                text = event.text
                if event.stream == "result" and not text.endswith("\n"):
                    text += "\n"
                self._texts.append(text)
                self._log(text)
            case CellPicture():
                self._picture(event)
            case CellDone():
                self.done = event

    def _log(self, text: str) -> None:
        if self._room <= 0:
            return
        self._logs.append(text[: self._room])
        self._room -= len(text)
        if self._room <= 0:
            self._logs.append(f"\n[... cut after {MOST_LOGS} characters ...]\n")

    def _picture(self, event: CellPicture) -> None:
        self._pictures += 1
        if self._pictures > MOST_PICTURES or len(event.data) > MOST_PICTURE:
            return
        self._flush()
        data = base64.b64encode(event.data).decode()
        self._shown.append(Picture(f"data:{event.file.media_type};base64,{data}"))

    def _flush(self) -> None:
        if self._logs:
            self._shown.append(Logs("".join(self._logs)))
            self._logs = []

    def outputs(self, done: CellDone) -> tuple[Logs | Picture, ...]:
        """What the client may see of it."""
        if done.status == "error":
            self._logs.append(code_results.traceback(done.traceback, done.error) + "\n")
        elif done.status != "ok":
            self._logs.append(f"[{done.error or done.status}]\n")
        if done.cut:
            self._logs.append("[... more was written than is kept ...]\n")
        self._flush()
        return tuple(self._shown)
