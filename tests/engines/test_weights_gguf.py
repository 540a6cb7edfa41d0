"""The GGUF reader: right on whole files, clear on damaged ones, quick to end on hostile ones."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from weights_kit import PAIRS, Pair, make_gguf

from ouzel.core.errors import WeightsError
from ouzel.engines.weights.gguf import MAX_STRINGS, Header, check_complete, read_header

fuzzed = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def gguf(tmp_path: Path) -> Any:
    def write(data: bytes, name: str = "some.gguf") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def changed(key: str, kind: int, value: Any) -> list[Pair]:
    return [pair for pair in PAIRS if pair[0] != key] + [(key, kind, value)]


def test_reads_what_the_file_says(gguf: Any) -> None:
    header = check_complete(gguf(make_gguf()))
    assert (header.version, header.architecture, header.name) == (3, "qwen2", "Small And Made Up")
    assert (header.context_length, header.block_count, header.embedding_length) == (2048, 4, 64)
    assert header.head_count_kv == (2, 2, 2, 2)
    assert (header.key_length, header.value_length) == (8, 8)
    assert header.has_chat_template
    assert (header.tensor_count, header.parameters) == (2, 64 * 32 + 256)
    assert header.split == (0, 1)


def test_estimates_the_cache_of_a_token(gguf: Any) -> None:
    header = read_header(gguf(make_gguf()))
    assert header.kv_bytes_per_token() == 4 * 2 * (8 + 8) * 2
    assert header.kv_bytes_per_token(1) == 4 * 2 * (8 + 8)


def test_heads_may_differ_by_layer(gguf: Any) -> None:
    pairs = changed("qwen2.attention.head_count_kv", 9, (4, [2, 0, 1, 0]))
    header = read_header(gguf(make_gguf(pairs)))
    assert header.head_count_kv == (2, 0, 1, 0)
    assert header.kv_bytes_per_token() == 3 * 16 * 2


def test_only_some_layers_may_keep_a_cache(gguf: Any) -> None:
    pairs = [*PAIRS, ("qwen2.full_attention_interval", 4, 4)]
    assert read_header(gguf(make_gguf(pairs))).head_count_kv == (0, 0, 0, 2)


def test_explicit_key_and_value_lengths_go_first(gguf: Any) -> None:
    pairs: list[Pair] = [*PAIRS, ("qwen2.attention.key_length", 4, 128)]
    header = read_header(gguf(make_gguf([*pairs, ("qwen2.attention.value_length", 4, 96)])))
    assert (header.key_length, header.value_length) == (128, 96)


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
def test_alignment_moves_the_data(gguf: Any, alignment: int) -> None:
    pairs = [*PAIRS, ("general.alignment", 4, alignment)]
    data = make_gguf(pairs, alignment=alignment)
    header = check_complete(gguf(data))
    assert header.alignment == alignment
    assert header.data_offset % alignment == 0
    assert header.file_bytes == len(data)


def test_version_two_is_read(gguf: Any) -> None:
    assert read_header(gguf(make_gguf(version=2))).version == 2


def test_a_file_cut_short_is_told_with_both_sizes(gguf: Any) -> None:
    whole = make_gguf()
    path = gguf(whole[:-1])
    with pytest.raises(WeightsError) as raised:
        check_complete(path)
    assert "cut short" in str(raised.value)
    assert f"{len(whole) - 1:,}" in str(raised.value)
    assert f"{len(whole):,}" in str(raised.value)


def test_bytes_after_the_last_tensor_do_no_harm(gguf: Any) -> None:
    assert check_complete(gguf(make_gguf() + b"\0" * 100)).tensor_count == 2


def test_cut_anywhere_it_is_an_error_and_never_a_crash(gguf: Any) -> None:
    whole = make_gguf()
    start = read_header(gguf(whole)).data_offset
    for length in [*range(0, start, 7), start, len(whole) - 1]:
        with pytest.raises(WeightsError):
            check_complete(gguf(whole[:length]))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a GGUF"),
        (b"GG", "not a GGUF"),
        (b"PK\x03\x04" + b"\0" * 100, "not a GGUF"),
        (b"GGUF", "cut short"),
        (make_gguf(version=1), "version 1"),
        (make_gguf(version=4), "version 4"),
        (b"GGUF" + struct.pack(">I", 3) + b"\0" * 100, "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "metadata pairs"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62), "bytes of key"),
        (make_gguf([*PAIRS, PAIRS[0]]), "there twice"),
        (make_gguf([("", 4, 1)]), "empty"),
        (make_gguf([*PAIRS, ("general.alignment", 4, 48)]), "power of two"),
        (make_gguf([*PAIRS, ("general.alignment", 4, 0)]), "power of two"),
        (make_gguf([*PAIRS, ("general.alignment", 8, "32")]), "whole number"),
        (make_gguf(changed("qwen2.context_length", 8, "many")), "whole number"),
        (make_gguf(changed("qwen2.block_count", 5, -1)), "whole number"),
        (make_gguf(changed("qwen2.block_count", 7, True)), "whole number"),
        (make_gguf(changed("general.name", 4, 5)), "not a text"),
        (make_gguf([("a.list", 9, (9, []))]), "unknown type 9"),
        (make_gguf(tensors=[("t", [32, 32, 1, 1, 1], 0, 4096)]), "5 dimensions"),
        (make_gguf(tensors=[("t", [2**40, 2**40], 0, 0)]), "can be counted"),
        (make_gguf(tensors=[("t", [100], 12, 144)]), "whole 256s"),
        (make_gguf(tensors=[("t", [32], 0, 128), ("t", [32], 0, 128)]), "there twice"),
        (make_gguf(tensors=[("t", [32], 0, 96), ("u", [32], 0, 128)]), "ends at 128"),
        (make_gguf(tensors=[("n" * 2000, [32], 0, 128)]), "tensor's name"),
    ],
)
def test_damage_is_named(gguf: Any, data: bytes, said: str) -> None:
    path = gguf(data)
    with pytest.raises(WeightsError, match=said) as raised:
        check_complete(path)
    assert str(path) in str(raised.value)


def test_an_unknown_value_type_is_named(gguf: Any) -> None:
    data = bytearray(make_gguf([("some.key", 4, 7)], tensors=[]))
    at = data.index(b"some.key") + len("some.key")
    data[at : at + 4] = struct.pack("<I", 99)
    with pytest.raises(WeightsError, match="unknown type 99"):
        read_header(gguf(bytes(data)))


def test_a_tensor_type_newer_than_the_table_is_no_error(gguf: Any) -> None:
    tensors = [("new", [32], 200, 64), ("old", [32], 0, 128)]
    header = check_complete(gguf(make_gguf(tensors=tensors)))
    assert header.file_bytes == header.data_offset + 64 + 128


def test_no_file_and_no_rights_are_clear(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        read_header(tmp_path / "nothing.gguf")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_header(tmp_path)


def test_endless_lists_end(gguf: Any) -> None:
    """A header that claims more strings than any vocabulary has is refused, not counted."""
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, MAX_STRINGS + 1)
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + b"\0" * 10_000
    begun = time.monotonic()
    with pytest.raises(WeightsError, match="strings"):
        read_header(gguf(data))
    assert time.monotonic() - begun < 5


def test_a_sparse_giant_is_not_read(tmp_path: Path) -> None:
    """Zeros without end after the magic: 64 GB that take no time and no memory."""
    path = tmp_path / "giant.gguf"
    with path.open("wb") as file:
        head = b"GGUF" + struct.pack("<IQQ", 3, 100_000, 60_000)
        file.write(head)
        file.truncate(64 * 10**9)
    with pytest.raises(WeightsError):
        read_header(path)


@fuzzed
@given(data=st.binary(max_size=300))
def test_any_bytes_end_in_an_error(gguf: Any, data: bytes) -> None:
    with pytest.raises(WeightsError):
        read_header(gguf(b"GGUF" + struct.pack("<I", 3) + b"\1" + data))


@fuzzed
@given(at=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 10_000))
def test_a_changed_or_cut_file_is_read_or_refused(gguf: Any, at: int, value: int, cut: int) -> None:
    data = bytearray(make_gguf())
    data[at % len(data)] = value
    path = gguf(bytes(data[: len(data) - cut % len(data)]))
    try:
        header = check_complete(path)
    except WeightsError:
        return
    assert isinstance(header, Header)
    assert header.file_bytes <= path.stat().st_size


@pytest.mark.tiny
def test_real_weights_are_whole(tiny_weights: Path) -> None:
    header = check_complete(tiny_weights)
    assert header.file_bytes == tiny_weights.stat().st_size == 98_362_432
    assert (header.architecture, header.context_length) == ("llama", 8192)
    assert header.kv_bytes_per_token() == 30 * 3 * (64 + 64) * 2
