"""Files that clients hand over, and containers in which the model runs code over them.

Nouns only: frozen, without wire JSON. Where bytes lie, and how code is run, the store and the
sandbox know. A container's files are told apart by their path below its work folder.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import Final, Literal

WORK: Final = "/mnt/data"
"""The work folder as the code in a container sees it."""

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
"""What a file is for, as the client says."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file that a client handed over.

    Args:
        id: `file-` and random bits.
        name: as the client called it, without folders; never used as a path on our disk.
        size: bytes.
        media_type: as its content looks, not as its name says.
        created_at: seconds since the epoch.
        expires_at: when it is deleted by itself; None for never.
    """

    id: str
    owner: str
    name: str
    size: int
    purpose: str
    media_type: str
    created_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """A file that comes in parts.

    Args:
        id: `upload_` and random bits.
        size: bytes that were announced.
        media_type: as the client announced it.
        expires_at: when it is given up if it is not completed.
        file: what it became, once completed.
    """

    id: str
    owner: str
    name: str
    size: int
    purpose: str
    media_type: str
    created_at: float
    expires_at: float
    status: Literal["pending", "completed", "cancelled", "expired"] = "pending"
    file: FileInfo | None = None


@dataclass(frozen=True, slots=True)
class UploadPartInfo:
    """One part of an upload; `id` is `part_` and random bits, `size` in bytes."""

    id: str
    upload_id: str
    created_at: float
    size: int


@dataclass(slots=True)
class Content:
    """An open file: stays readable though it be deleted meanwhile. Whoever has it closes it.

    Args:
        descriptor: of the file, open for reading.
        size: bytes.
    """

    descriptor: int
    size: int
    media_type: str
    name: str

    async def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start` on; fewer at the end. Raises OSError."""
        return await asyncio.to_thread(os.pread, self.descriptor, length, start)

    def close(self) -> None:
        """Let it go; may be called twice."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


MemoryLimit = Literal["1g", "4g", "16g", "64g"]


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a container shall be.

    Args:
        name: for people.
        idle_minutes: minutes without use after which it expires.
        memory: most memory of the code in it.
        file_ids: files of the owner's that are copied into its work folder by name.
    """

    name: str = ""
    idle_minutes: int = 20
    memory: MemoryLimit = "1g"
    file_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container; `id` is `cntr_` and random bits, times are seconds since the epoch."""

    id: str
    owner: str
    spec: ContainerSpec
    created_at: float
    last_active_at: float
    status: Literal["running", "expired"] = "running"


@dataclass(frozen=True, slots=True)
class ContainerFile:
    """A file in a container.

    Args:
        id: `cfile_` and bits that follow from container and path: the same as long as it is there.
        path: below the work folder, `/` between folders; shown to clients after `WORK`.
        size: bytes.
        source: who put it there, the client or the model's code.
    """

    id: str
    container_id: str
    path: str
    size: int
    created_at: float
    source: Literal["user", "assistant"] = "assistant"
    media_type: str = "application/octet-stream"

    @property
    def name(self) -> str:
        """Its name without folders."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class CellText:
    """Code that runs has written something; `result` is the value of its last line."""

    stream: Literal["stdout", "stderr", "result"]
    text: str


@dataclass(frozen=True, slots=True)
class CellPicture:
    """Code that runs has shown a picture, which is kept in the work folder, too."""

    file: ContainerFile
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CellDone:
    """How a cell ended; the last of its events.

    Args:
        status: `ok`; `error`: the code raised; `interrupted`: its time was up and it was stopped,
            variables are kept; `died`: the interpreter is gone, and its variables with it.
        error: the exception's last line (`ValueError: ...`), or why it was stopped or died.
        traceback: the whole traceback as text, without colours.
        files: what it left or changed in the work folder, pictures it showed included.
        fresh: the interpreter was started anew for this cell although the container had been used
            before: variables of earlier cells are gone, files are not.
        seconds: how long it ran.
        cut: output was more than is taken, and its rest was left out.
    """

    status: Literal["ok", "error", "interrupted", "died"]
    error: str = ""
    traceback: str = ""
    files: tuple[ContainerFile, ...] = ()
    fresh: bool = False
    seconds: float = 0.0
    cut: bool = False


CellEvent = CellText | CellPicture | CellDone
