"""The promises about files and containers; joins `contracts.py`, under the same rules.

Someone else's object is NotFound, as one that is not there. Names and paths that come from
clients or from code in a container never decide where on our disk something lies.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Literal, Protocol

from ouzel.core.files import (
    CellEvent,
    ContainerFile,
    ContainerInfo,
    ContainerSpec,
    Content,
    FileInfo,
    UploadInfo,
    UploadPartInfo,
)

Order = Literal["asc", "desc"]


class Files(Protocol):
    """Files of clients, and uploads in parts. Every method may raise StoreError.

    What a returned method kept survives the death of this process; half a file never shows.
    """

    async def create(
        self,
        owner: str,
        name: str,
        purpose: str,
        chunks: AsyncIterable[bytes],
        expires_after: float | None = None,
        file_id: str | None = None,
    ) -> FileInfo:
        """Keep a file, written to disk as it comes.

        Args:
            expires_after: seconds; None for never.
            file_id: an id that was reserved for it.

        Raises:
            TooLarge: it is larger than one file may be, or the owner's quota is used up.
        """
        ...

    async def load(self, file_id: str, owner: str) -> FileInfo:
        """Raises NotFound."""
        ...

    async def page(
        self,
        owner: str,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 10_000,
        order: Order = "desc",
    ) -> tuple[list[FileInfo], bool]:
        """One page, and whether there is more. Raises NotFound if `after` is not there."""
        ...

    async def open(self, file_id: str, owner: str) -> Content:
        """Its content, which the caller closes. Raises NotFound."""
        ...

    async def delete(self, file_id: str, owner: str) -> None:
        """Raises NotFound."""
        ...

    async def begin_upload(
        self,
        owner: str,
        name: str,
        purpose: str,
        size: int,
        media_type: str,
        expires_after: float | None = None,
    ) -> UploadInfo:
        """Begin an upload; `expires_after` is for the file that it becomes. Raises TooLarge."""
        ...

    async def add_part(
        self, upload_id: str, owner: str, chunks: AsyncIterable[bytes]
    ) -> UploadPartInfo:
        """Keep a part. Raises NotFound, Conflict (not pending), TooLarge."""
        ...

    async def complete_upload(
        self, upload_id: str, owner: str, part_ids: tuple[str, ...], md5: str | None = None
    ) -> UploadInfo:
        """Put the parts together, in this order. Raises NotFound, Conflict, and RequestError if
        a part is not there, twice, or the sum is not what was announced."""
        ...

    async def cancel_upload(self, upload_id: str, owner: str) -> UploadInfo:
        """Give it up. Raises NotFound, Conflict."""
        ...


class Containers(Protocol):
    """Places where model-written code runs. Every method may raise StoreError."""

    async def create(
        self, owner: str, spec: ContainerSpec, container_id: str | None = None
    ) -> ContainerInfo:
        """Make a container, with the id if it was reserved. Raises NotFound (a file, with
        `param` `file_ids`), RequestError (more memory than allowed here, with `param`
        `memory_limit`), TooLarge (the files do not fit)."""
        ...

    async def load(self, container_id: str, owner: str) -> ContainerInfo:
        """Also one that has expired. Raises NotFound."""
        ...

    async def page(
        self,
        owner: str,
        *,
        name: str | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "desc",
    ) -> tuple[list[ContainerInfo], bool]:
        """One page, and whether there is more. Raises NotFound if `after` is not there."""
        ...

    async def delete(self, container_id: str, owner: str) -> None:
        """Its code is stopped and its files are gone. Raises NotFound."""
        ...

    async def put(
        self,
        container_id: str,
        owner: str,
        name: str,
        chunks: AsyncIterable[bytes],
    ) -> ContainerFile:
        """Put a file of the client's into the work folder; one of that name is replaced. Raises
        NotFound (also expired), TooLarge, RequestError (an impossible name, `param` `name`)."""
        ...

    async def files(self, container_id: str, owner: str) -> list[ContainerFile]:
        """All plain files, oldest first; links are left out. Raises NotFound."""
        ...

    async def open(
        self, container_id: str, owner: str, file_id: str
    ) -> tuple[ContainerFile, Content]:
        """A file and its content, which the caller closes. Raises NotFound."""
        ...

    async def delete_file(self, container_id: str, owner: str, file_id: str) -> None:
        """Raises NotFound."""
        ...

    def run(
        self, container_id: str, owner: str, code: str, within: float
    ) -> AsyncGenerator[CellEvent, None]:
        """Run a cell; yields what it says and then exactly one CellDone.

        Cells of one container run one after another. Closing the generator interrupts the cell.

        Args:
            within: seconds for everything, waiting for a place included.

        Raises:
            NotFound: there is no such container, or it has expired.
            ToolError: no place became free in time, or code cannot be run here.
        """
        ...
