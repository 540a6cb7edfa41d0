"""The engine's plan: arithmetic on memory, cores and header, and a look at this machine."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import psutil
import pytest

from ouzel.core.errors import EngineError
from ouzel.engines.machine import (
    CPU_BATCH,
    LEAST_WINDOW,
    UNKNOWN_KV,
    WINDOW,
    Device,
    Machine,
    Overrides,
    _cores_of,
    _memory_left,
    choose,
    survey,
)
from ouzel.engines.weights.gguf import Header

GB = 10**9

QWEN = Header(
    version=3,
    architecture="qwen2",
    name="a 1.5B model",
    context_length=32_768,
    block_count=28,
    embedding_length=1536,
    head_count=12,
    head_count_kv=(2,) * 28,
    key_length=128,
    value_length=128,
    has_chat_template=True,
    parameters=1_777_088_000,
    tensor_count=338,
    alignment=32,
    data_offset=5_000_000,
    file_bytes=1_117_320_768,
)
KV = 28 * 2 * (128 + 128) * 2
"""Bytes of f16 cache for one token, by hand."""


def plan_for(memory: float, cores: int = 2, header: Header = QWEN, **overrides: int):  # type: ignore[no-untyped-def]
    return choose(
        header,
        header.file_bytes,
        Machine(cores, int(memory * GB)),
        (Device("CPU", "cpu", int(memory * GB)),),
        Overrides(**overrides),
    )


def test_a_roomy_machine_gets_whole_windows_for_several_requests() -> None:
    plan = plan_for(24)
    assert (plan.slots, plan.context, plan.threads) == (4, WINDOW, 2)
    assert plan.kv_bytes == 4 * WINDOW * KV
    assert (plan.batch, plan.step) == (CPU_BATCH, CPU_BATCH)
    assert (plan.gpu_layers, plan.fit) == (0, False)
    assert plan.prompt_cache == 2048


def test_many_cores_get_more_slots() -> None:
    assert plan_for(64, cores=16).slots == 8


def test_less_memory_gives_fewer_slots_then_smaller_windows_then_one() -> None:
    plans = [plan_for(memory) for memory in (24, 12, 8, 6, 4, 3, 1.9)]
    slots = [plan.slots for plan in plans]
    assert slots == sorted(slots, reverse=True)
    assert slots[0] == 4
    assert slots[-1] == 1
    half = plan_for(6)
    assert half.slots == 2
    assert 8_192 <= half.context < WINDOW


@pytest.mark.parametrize("memory", [2.2, 3, 4, 6, 8, 16, 24, 100, 500])
@pytest.mark.parametrize("cores", [1, 2, 8, 64])
def test_caches_never_take_more_than_their_share(memory: float, cores: int) -> None:
    plan = plan_for(memory, cores)
    assert plan.context >= LEAST_WINDOW
    least = plan.slots == 1 and plan.context == LEAST_WINDOW
    assert least or plan.kv_bytes <= memory * GB / 4
    assert plan.prompt_cache * 2**20 <= memory * GB / 8
    assert plan.threads == cores


def test_too_little_memory_is_an_error_with_both_numbers() -> None:
    with pytest.raises(EngineError, match=r"need about 1\.6 GB of memory and 0\.5 GB are free"):
        plan_for(0.5)


def test_weights_made_for_less_are_not_given_more() -> None:
    small = dataclasses.replace(QWEN, context_length=4096)
    assert plan_for(24, header=small).context == 4096


def test_each_choice_can_be_overridden() -> None:
    plan = plan_for(24, slots=7, threads=1, context=3000, gpu_layers=5)
    assert (plan.slots, plan.threads, plan.context, plan.gpu_layers) == (7, 1, 3000, 5)
    assert plan_for(24, slots=30).slots == 30
    assert plan_for(24, slots=30).context < WINDOW
    assert plan_for(24, context=1024).slots == 4


def test_a_context_beyond_the_weights_is_refused() -> None:
    with pytest.raises(EngineError, match=r"made for 32,768 tokens .* 40,000 were asked for"):
        plan_for(24, context=40_000)


def test_slots_and_context_beyond_the_memory_are_refused() -> None:
    with pytest.raises(EngineError, match=r"100 slots of 32,768 tokens .* set slots or context"):
        plan_for(24, slots=100, context=32_768)
    assert plan_for(24, slots=30, context=32_768).slots == 30  # in doubt, the engine tries


def test_a_header_that_says_nothing_is_served_with_care() -> None:
    mute = dataclasses.replace(
        QWEN, context_length=None, head_count_kv=(), key_length=None, value_length=None
    )
    plan = plan_for(24, header=mute)
    assert plan.kv_bytes == plan.slots * plan.context * UNKNOWN_KV
    assert plan.kv_bytes <= 6 * GB


def test_a_gpu_that_holds_the_weights_is_used() -> None:
    devices = (Device("GPU", "gpu", 12 * GB), Device("CPU", "cpu", 8 * GB))
    plan = choose(QWEN, QWEN.file_bytes, Machine(8, 8 * GB), devices)
    assert (plan.gpu_layers, plan.fit) == (-1, True)
    assert plan.batch > CPU_BATCH
    assert (plan.slots, plan.context) == (8, WINDOW)
    forbidden = choose(QWEN, QWEN.file_bytes, Machine(8, 8 * GB), devices, Overrides(gpu_layers=0))
    assert (forbidden.gpu_layers, forbidden.fit, forbidden.batch) == (0, False, CPU_BATCH)


def test_a_gpu_that_is_too_small_takes_what_fits() -> None:
    devices = (Device("GPU", "gpu", GB // 2), Device("CPU", "cpu", 8 * GB))
    plan = choose(QWEN, QWEN.file_bytes, Machine(8, 8 * GB), devices)
    assert (plan.gpu_layers, plan.fit, plan.batch) == (-1, True, CPU_BATCH)
    assert plan.kv_bytes <= 2 * GB


def test_this_machine_is_seen() -> None:
    machine = survey()
    assert 1 <= machine.cores <= (psutil.cpu_count() or 1)
    assert 0 < machine.memory <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000", 1), ("400000 100000", 4), ("50000 100000", 1), ("max 100000", None)],
)
def test_a_cpu_quota_counts_in_whole_cores(tmp_path: Path, quota: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert _cores_of(tmp_path) == cores


def test_a_memory_limit_counts_what_is_left_of_it(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("800\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\nactive_file 50\n")
    assert _memory_left(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert _memory_left(tmp_path) is None
    assert _memory_left(tmp_path / "nothing") is None


def test_more_memory_never_gives_less() -> None:
    plans = [plan_for(memory / 4) for memory in range(8, 120)]
    for less, more in itertools.pairwise(plans):
        assert more.slots * more.context >= less.slots * less.context or more.slots >= less.slots
