"""Reads what a GGUF file says of itself: the header and tensor table, never the tensors.

It answers three questions before an engine is started: is this a GGUF at all, is all of it there,
and how much memory will a conversation need. It knows neither the catalogue nor downloads.

Format: ggml's docs/gguf.md, versions 2 and 3, little-endian; the checks are those that llama.cpp
makes when it opens a file (ggml/src/gguf.cpp). A header is input from a stranger: `gguf_bytes`
bounds how much of it is read, the limits below how many things it may hold.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from ouzel.core.errors import WeightsError
from ouzel.engines.weights.gguf_bytes import MAX_HEADER_BYTES, SCALARS, Reader

MAX_PAIRS = 65_536
MAX_TENSORS = 131_072
MAX_STRINGS = 4_000_000
"""Bound for the strings of all lists together: vocabularies and their merges."""
MAX_KEY_BYTES = 65_535
"""The format's own bound for a key."""
MAX_TEXT_BYTES = 2**20
"""Bound for a text that is kept; others are skipped unread."""
MAX_DIMENSIONS = 4
MAX_INTEGER = 2**63 - 1

MAX_LAYERS = 65_536

_STRING, _ARRAY = 8, 9
_INTEGERS = (0, 1, 2, 3, 4, 5, 10, 11)
_TENSOR_TYPES = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""ggml type number -> (elements in a block, bytes of a block); from the `gguf` package, 0.19.0."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says of itself.

    Args:
        version: of the format, 2 or 3.
        architecture: `qwen2`, `llama`, `gpt-oss`, ...; empty in later parts of a split file.
        name: the weights' name as their maker wrote it.
        context_length: tokens the weights were trained for.
        block_count: layers.
        embedding_length: width of a layer.
        head_count: attention heads of a layer (the largest, where layers differ).
        head_count_kv: key-value heads of each layer; 0 for a layer that keeps no cache.
        key_length: numbers in one head's key.
        value_length: numbers in one head's value.
        has_chat_template: messages can be turned into a prompt as the maker meant it.
        parameters: weights in this file, all tensors together.
        tensor_count: tensors in this file.
        alignment: bytes; tensors start at multiples of it.
        data_offset: byte at which the first tensor starts.
        file_bytes: bytes the file must have for its last tensor to be whole.
        split: (index from 0, count) where the weights are spread over files, else (0, 1).
    """

    version: int
    architecture: str
    name: str | None
    context_length: int | None
    block_count: int | None
    embedding_length: int | None
    head_count: int | None
    head_count_kv: tuple[int, ...]
    key_length: int | None
    value_length: int | None
    has_chat_template: bool
    parameters: int
    tensor_count: int
    alignment: int
    data_offset: int
    file_bytes: int
    split: tuple[int, int] = (0, 1)

    def kv_bytes_per_token(self, element_bytes: int = 2) -> int | None:
        """Bytes of key-value cache for one token: an upper bound, sliding windows need less.

        Args:
            element_bytes: bytes of one number in the cache; 2 for the usual f16.

        Returns:
            None if the file does not say enough.
        """
        if not self.head_count_kv or self.key_length is None or self.value_length is None:
            return None
        return sum(self.head_count_kv) * (self.key_length + self.value_length) * element_bytes


def read_header(path: Path) -> Header:
    """Read a file's header and tensor table.

    Raises:
        WeightsError: it cannot be read, is not a GGUF, or ends before its tensors are listed.
    """
    try:
        with path.open("rb") as file:
            return _read(Reader(file, path))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def check_complete(path: Path) -> Header:
    """Read the header and make sure that the file is as long as its tensor table demands.

    Raises:
        WeightsError: as `read_header`, or the file was cut short; both sizes are in the message.
    """
    header = read_header(path)
    size = path.stat().st_size
    if size < header.file_bytes:
        raise WeightsError(
            f"{path} was cut short: it has {size:,} bytes, its tensors need "
            f"{header.file_bytes:,}. Download it again."
        )
    return header


_Value = int | float | bool | str | tuple[int, ...]


def _read(reader: Reader) -> Header:
    version = _read_version(reader)
    tensor_count = reader.count(MAX_TENSORS, "tensors")
    pair_count = reader.count(MAX_PAIRS, "metadata pairs")
    pairs = _Pairs(reader)
    for _ in range(pair_count):
        pairs.read_one()
    alignment = pairs.integer("general.alignment")
    if alignment is None:
        alignment = 32  # the format's own default
    if alignment == 0 or alignment & (alignment - 1):
        raise reader.damaged(f"its alignment, {alignment}, is not a power of two")
    parameters, data_bytes = _read_tensors(reader, tensor_count, alignment)
    data_offset = _padded(reader.tell(), alignment) if tensor_count else reader.tell()
    return _header(pairs, version, tensor_count, alignment, parameters, data_offset, data_bytes)


def _read_version(reader: Reader) -> int:
    if reader.size < 4 or reader.take(4) != b"GGUF":  # an empty file is not "cut short"
        raise WeightsError(f"{reader.path} is not a GGUF file: it does not start with 'GGUF'.")
    version = reader.u32()
    if version & 0xFFFF == 0:
        raise reader.damaged("it is in big-endian order, which is not read here")
    if version not in (2, 3):
        raise reader.damaged(f"it is in version {version} of the format; 2 and 3 are read")
    return version


class _Pairs:
    """The metadata, of which only small values are kept."""

    _KEPT_ARRAYS = ("attention.head_count", "attention.head_count_kv")

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._values: dict[str, _Value] = {}
        self._seen: set[str] = set()
        self._strings_left = MAX_STRINGS

    def read_one(self) -> None:
        reader = self._reader
        key = reader.text(MAX_KEY_BYTES, "key")
        if not key or key in self._seen:
            raise reader.damaged(f"the metadata key {key[:80]!r} is empty or there twice")
        self._seen.add(key)
        kind = reader.u32()
        if kind == _STRING:
            self._read_string(key)
        elif kind == _ARRAY:
            self._read_array(key)
        elif kind in SCALARS:
            self._values[key] = reader.number(kind)
        else:
            raise reader.damaged(f"the metadata key {key[:80]!r} has the unknown type {kind}")

    def _read_string(self, key: str) -> None:
        if key.startswith("general."):
            self._values[key] = self._reader.text(MAX_TEXT_BYTES, key[:80])
        else:
            self._reader.skip(self._reader.count(MAX_HEADER_BYTES, f"bytes of {key[:80]}"))

    def _read_array(self, key: str) -> None:
        reader = self._reader
        kind = reader.u32()
        if kind != _STRING and kind not in SCALARS:
            raise reader.damaged(f"the list {key[:80]!r} has elements of the unknown type {kind}")
        count = reader.count(MAX_HEADER_BYTES, f"elements of {key[:80]}")
        if kind == _STRING:
            self._strings_left -= count
            if self._strings_left < 0:
                raise reader.damaged(f"its lists hold more than {MAX_STRINGS:,} strings")
            for _ in range(count):
                reader.skip(reader.count(MAX_HEADER_BYTES, f"bytes of {key[:80]}"))
        elif key.endswith(self._KEPT_ARRAYS) and kind in _INTEGERS:
            if count > MAX_LAYERS:
                raise reader.damaged(f"the list {key[:80]!r} has {count:,} elements")
            self._values[key] = tuple(int(reader.number(kind)) for _ in range(count))
        else:
            reader.skip(count * struct.calcsize(SCALARS[kind]))

    def has(self, key: str) -> bool:
        return key in self._seen

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, str):
            raise self._reader.damaged(f"{key} is not a text")
        return value

    def integer(self, key: str) -> int | None:
        """One integer; the largest, where the file gives one for each layer."""
        return max(self.integers(key), default=None)

    def integers(self, key: str) -> tuple[int, ...]:
        value = self._values.get(key, "" if key in self._seen else ())
        found = value if isinstance(value, tuple) else (value,)
        for each in found:
            if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each <= 2**32:
                raise self._reader.damaged(f"{key} is not a sensible whole number")
        return tuple(int(each) for each in found)


def _read_tensors(reader: Reader, count: int, alignment: int) -> tuple[int, int]:
    """All tensors' elements, and the bytes from the start of the data to the end of the last."""
    parameters = end = next_offset = 0
    contiguous = True
    names: set[bytes] = set()
    for _ in range(count):
        name = reader.take(reader.count(1024, "bytes of a tensor's name"))
        if name in names:
            raise reader.damaged(f"tensor {_shown(name)} is there twice")
        names.add(name)
        elements, row = _read_shape(reader, name)
        kind, offset = reader.u32(), reader.u64()
        if offset % alignment or offset > MAX_INTEGER:
            raise reader.damaged(f"tensor {_shown(name)} starts at {offset}, not aligned")
        if contiguous and offset != next_offset:
            raise reader.damaged(
                f"tensor {_shown(name)} starts at {offset}, the one before ends at {next_offset}"
            )
        parameters += elements
        size = _tensor_bytes(reader, name, kind, elements, row)
        end = max(end, offset + size)
        next_offset = _padded(offset + size, alignment)
        # A type newer than this table: its size is not known, so the next offset is believed.
        contiguous = kind in _TENSOR_TYPES
    return parameters, end


def _read_shape(reader: Reader, name: bytes) -> tuple[int, int]:
    """The tensor's elements in all and in one row."""
    dimensions = reader.u32()
    if dimensions > MAX_DIMENSIONS:
        raise reader.damaged(f"tensor {_shown(name)} has {dimensions} dimensions")
    shape = [reader.u64() for _ in range(dimensions)]
    elements = 1
    for length in shape:
        elements *= length
    if max(shape, default=1) > MAX_INTEGER or elements > MAX_INTEGER:
        raise reader.damaged(f"tensor {_shown(name)} has more elements than can be counted")
    return elements, shape[0] if shape else 1


def _tensor_bytes(reader: Reader, name: bytes, kind: int, elements: int, row: int) -> int:
    """Bytes of the tensor; 0 for a type that is not in the table (then sizes are lower bounds)."""
    if kind not in _TENSOR_TYPES:
        return 0
    block, block_bytes = _TENSOR_TYPES[kind]
    if row % block:
        raise reader.damaged(f"tensor {_shown(name)} has rows of {row}, not of whole {block}s")
    return elements // block * block_bytes


def _header(
    pairs: _Pairs,
    version: int,
    tensor_count: int,
    alignment: int,
    parameters: int,
    data_offset: int,
    data_bytes: int,
) -> Header:
    architecture = pairs.text("general.architecture") or ""
    prefix = f"{architecture}."
    blocks = pairs.integer(prefix + "block_count")
    heads = pairs.integer(prefix + "attention.head_count")
    width = pairs.integer(prefix + "embedding_length")
    head_width = width // heads if width and heads else None
    split = (pairs.integer("split.no") or 0, pairs.integer("split.count") or 1)
    return Header(
        version=version,
        architecture=architecture,
        name=pairs.text("general.name"),
        context_length=pairs.integer(prefix + "context_length"),
        block_count=blocks,
        embedding_length=width,
        head_count=heads,
        head_count_kv=_kv_heads(pairs, prefix, blocks),
        key_length=pairs.integer(prefix + "attention.key_length") or head_width,
        value_length=pairs.integer(prefix + "attention.value_length") or head_width,
        has_chat_template=pairs.has("tokenizer.chat_template"),
        parameters=parameters,
        tensor_count=tensor_count,
        alignment=alignment,
        data_offset=data_offset,
        file_bytes=data_offset + data_bytes,
        split=split,
    )


def _kv_heads(pairs: _Pairs, prefix: str, blocks: int | None) -> tuple[int, ...]:
    """Key-value heads of each layer; as many as attention heads where the file does not say."""
    found = pairs.integers(prefix + "attention.head_count_kv") or pairs.integers(
        prefix + "attention.head_count"
    )
    if len(found) != 1 or not blocks or blocks > MAX_LAYERS:
        return found
    interval = pairs.integer(prefix + "full_attention_interval") or 1
    return tuple(found[0] if (at + 1) % interval == 0 else 0 for at in range(blocks))


def _padded(value: int, alignment: int) -> int:
    return (value + alignment - 1) & ~(alignment - 1)


def _shown(name: bytes) -> str:
    return repr(name[:80].decode("utf-8", "replace"))
