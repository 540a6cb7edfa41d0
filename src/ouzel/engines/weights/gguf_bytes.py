"""Takes little-endian values from the start of a GGUF file, and never more than is safe.

Every count and length is bounded before it is believed, so that reading ends soon and small on
any bytes. This file knows the format's numbers and texts, not what they mean.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from ouzel.core.errors import WeightsError

MAX_HEADER_BYTES = 128 * 2**20
"""Headers of large vocabularies (260,000 tokens with merges) stay under 20 MiB."""

SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
"""GGUF value type -> how `struct` spells it."""


class Reader:
    """Little-endian values from a file, with a bound on how far it reads."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._left = MAX_HEADER_BYTES
        self.size = os.fstat(file.fileno()).st_size
        self.path = path

    def tell(self) -> int:
        return MAX_HEADER_BYTES - self._left

    def take(self, count: int) -> bytes:
        self._spend(count)
        data = self._file.read(count)
        if len(data) != count:
            raise self._ended()
        return data

    def skip(self, count: int) -> None:
        if count <= 4096:  # cheaper than a seek, and vocabularies are many short strings
            self.take(count)
            return
        self._spend(count)
        self._file.seek(count, os.SEEK_CUR)
        if self.tell() > self.size:
            raise self._ended()

    def number(self, kind: int) -> int | float | bool:
        form = SCALARS[kind]
        value: int | float | bool = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def count(self, limit: int, what: str) -> int:
        value = self.u64()
        if value > limit:
            raise self.damaged(f"it claims {value:,} {what}; {limit:,} is the most that is read")
        return value

    def text(self, limit: int, what: str) -> str:
        return self.take(self.count(limit, f"bytes of {what}")).decode("utf-8", "replace")

    def damaged(self, why: str) -> WeightsError:
        return WeightsError(f"{self.path} is damaged, or no usable GGUF: {why}.")

    def _spend(self, count: int) -> None:
        if count > self._left:
            raise self.damaged(f"its header is longer than {MAX_HEADER_BYTES:,} bytes")
        self._left -= count

    def _ended(self) -> WeightsError:
        return WeightsError(
            f"{self.path} was cut short: it has {self.size:,} bytes and ends before its tensors "
            f"are listed. Download it again."
        )
