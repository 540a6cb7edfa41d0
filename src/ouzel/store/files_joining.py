"""Parts of an upload become one file: checked by their numbers first, then copied.

This file does not know rows, nor what becomes of the upload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from ouzel.core.errors import RequestError, StoreError
from ouzel.core.files import UploadInfo
from ouzel.store.blobs import Blobs, Draft
from ouzel.store.files_keeping import KEEP, Keeping

_COPIED_AT_ONCE = 2**20


class PartGone(StoreError):
    """The bytes of a part are not there, or not all of them."""


def check_parts(upload: UploadInfo, part_ids: Sequence[str], parts: Mapping[str, int]) -> None:
    """Raise RequestError unless these parts make the file that was announced.

    Args:
        part_ids: as the client orders them.
        parts: bytes of each part that is there.
    """
    seen: set[str] = set()
    for at, part_id in enumerate(part_ids):
        if part_id in seen or part_id not in parts:
            wrong = "is named twice" if part_id in seen else "is not one of this upload"
            raise RequestError(f"The part {wrong}.", param=f"part_ids[{at}]", code="invalid_value")
        seen.add(part_id)
    total = sum(parts[part_id] for part_id in part_ids)
    if total != upload.size:
        raise RequestError(
            f"The parts have {total} bytes together, but {upload.size} were announced.",
            param="part_ids",
            code="bytes_mismatch",
        )


async def join_parts(
    keeping: Keeping, file_id: str, upload: UploadInfo, part_ids: Sequence[str], md5: str | None
) -> Draft:
    """Copy the parts into one draft, checked and on disk. If this fails, nothing is left of it.

    Copied, not appended to the first: until the rows say otherwise the parts have to stay.

    Args:
        md5: of the whole, in hexadecimal; checked if given.

    Raises:
        RequestError: the checksum is another.
        PartGone: the bytes of a part are missing.
        StoreError: the disk is full, or refused.
    """
    digest = hashlib.md5(usedforsecurity=False)
    draft = keeping.blobs.draft(file_id)
    try:
        await keeping.on_disk(KEEP, draft.begin)
        for part_id in part_ids:
            await keeping.on_disk(KEEP, _append, keeping.blobs, part_id, draft, digest)
        if draft.size != upload.size:
            raise PartGone(f"Parts of upload {upload.id} are damaged on disk.")
        if md5 is not None and digest.hexdigest() != md5.strip().lower():
            raise RequestError(
                f"The parts have the MD5 checksum {digest.hexdigest()}, not the given one.",
                param="md5",
                code="checksum_mismatch",
            )
        await keeping.on_disk(KEEP, draft.finish)
    except BaseException:
        await keeping.abandon(draft)
        raise
    return draft


def _append(blobs: Blobs, part_id: str, draft: Draft, digest: hashlib._Hash) -> None:
    """Copy one part; in a thread. Raises PartGone, OSError."""
    try:
        descriptor, _ = blobs.open(part_id)
    except FileNotFoundError as error:
        raise PartGone("The bytes of a part are missing on disk.") from error
    with open(descriptor, "rb", buffering=0) as part:  # noqa: PTH123
        while chunk := part.read(_COPIED_AT_ONCE):
            digest.update(chunk)
            draft.write([chunk])
