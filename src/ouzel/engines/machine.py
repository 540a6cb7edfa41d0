"""How the embedded engine is set up on this machine: threads, slots, context, batches.

`survey` looks at the machine; `choose` is pure arithmetic on what it found and on the weights'
header. Why each number is what it is: docs/decisions/0004-embedded-engine.md, with the
measurements. Nothing here starts anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import psutil

from ouzel.core.errors import EngineError
from ouzel.engines.weights.gguf import Header

MIB: Final = 2**20

WINDOW: Final = 32_768
"""Tokens that one request may use, where memory and weights allow it."""

LEAST_WINDOW: Final = 2_048
"""Less than this is no conversation: too little memory is an error then."""

SMALL_WINDOW: Final = 8_192
"""Two slots that have at least this are better than one that has all."""

UNKNOWN_KV: Final = 256 * 1024
"""Bytes of cache for a token where the header does not say: more than most weights need."""

KV_SHARE: Final = 0.25
"""Share of the free memory that caches of running requests take. They are allocated, and
touched, at start."""

PROMPT_CACHE_SHARE: Final = 0.125
PROMPT_CACHE_MOST: Final = 2048 * MIB
"""Conversations whose slot was given to another are kept in memory up to this."""

HEADROOM: Final = 1.1
"""Weights in memory, relative to their file: repacked copies, alignment."""

WORKSPACE: Final = 300 * MIB
"""Compute buffers and the process itself."""

CPU_BATCH: Final = 64
"""Tokens of a prompt computed in one step on a CPU. A running step cannot be interrupted, so this
bounds how long a cancelled request still holds its slot, and how long others wait between tokens
while somebody's prompt is read."""

GPU_BATCH: Final = 2048
GPU_STEP: Final = 512
"""llama.cpp's own defaults; a GPU computes such a step in milliseconds."""


@dataclass(frozen=True, slots=True)
class Device:
    """What llama.cpp computes on.

    Args:
        kind: `cpu`, `gpu` (memory of its own), `igpu` (shares the machine's), `accel`.
        free: bytes of its memory that are free.
    """

    name: str
    kind: Literal["cpu", "gpu", "igpu", "accel"]
    free: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine may use.

    Args:
        cores: physical cores that this process may run on.
        memory: bytes that can be taken without swapping.
    """

    cores: int
    memory: int


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the user decided; 0 leaves it to `choose`, -1 for gpu_layers too."""

    context: int = 0
    slots: int = 0
    threads: int = 0
    gpu_layers: int = -1


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """How the engine is set up.

    Args:
        threads: that compute, in a step of one token or of many.
        slots: requests that are computed together; more wait.
        context: tokens that one request may use, prompt and answer together.
        batch: tokens of prompts taken up between two answers' tokens.
        step: tokens computed at once.
        gpu_layers: layers on the GPU; -1 for as many as fit.
        fit: let llama.cpp reduce gpu_layers until they fit.
        prompt_cache: MiB for conversations that lost their slot.
        kv_bytes: what all slots' caches take together.
    """

    threads: int
    slots: int
    context: int
    batch: int
    step: int
    gpu_layers: int
    fit: bool
    prompt_cache: int
    kv_bytes: int

    def as_json(self) -> dict[str, int | bool]:
        """For the worker."""
        return asdict(self)


def survey() -> Machine:
    """What this process may use: affinity and the limits of its control groups included."""
    logical = psutil.cpu_count() or 1
    cores = psutil.cpu_count(logical=False) or logical
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
        cores = min(cores, allowed)
    memory = psutil.virtual_memory().available
    for group in _control_groups():
        cores = min(cores, _cores_of(group) or cores)
        left = _memory_left(group)
        memory = memory if left is None else min(memory, left)
    return Machine(cores=max(1, cores), memory=memory)


def choose(
    header: Header,
    weights_bytes: int,
    machine: Machine,
    devices: Sequence[Device] = (),
    overrides: Overrides = Overrides(),
) -> EnginePlan:
    """Set up an engine for these weights on this machine.

    Args:
        header: of the weights' (first) file.
        weights_bytes: all their files together.
        machine: as `survey` found it.
        devices: as llama.cpp lists them.
        overrides: what the user decided.

    Raises:
        EngineError: the memory is not enough for the weights and a short conversation; the
            message has both numbers.
    """
    kv = header.kv_bytes_per_token() or UNKNOWN_KV
    weights = round(weights_bytes * HEADROOM) + WORKSPACE
    gpu = _gpu_memory(devices) if overrides.gpu_layers != 0 else 0
    on_gpu = gpu >= weights + kv * LEAST_WINDOW
    if on_gpu:
        room = gpu - weights
    else:
        # Weights on a GPU that is too small for all of them need less of this; how much less is
        # known only to llama.cpp, so that they count in full.
        room = machine.memory - weights
        # Mapped weights can be read again from disk, so a little too large is slow, not wrong.
        if room + weights_bytes // 2 < kv * LEAST_WINDOW and not gpu:
            raise EngineError(
                f"These weights need about {_gb(weights + kv * LEAST_WINDOW)} of memory and "
                f"{_gb(machine.memory)} are free. Close other programs, or serve smaller weights."
            )
        room = min(round(machine.memory * KV_SHARE), max(room, 0))
    slots, context = _share(max(room // kv, LEAST_WINDOW), header, machine, overrides)
    if overrides.slots or overrides.context:
        _refuse_the_impossible(weights, slots, context, kv, gpu + machine.memory)
    cache = min(PROMPT_CACHE_MOST, round(machine.memory * PROMPT_CACHE_SHARE))
    return EnginePlan(
        threads=overrides.threads or machine.cores,
        slots=slots,
        context=context,
        batch=GPU_BATCH if on_gpu else CPU_BATCH,
        step=GPU_STEP if on_gpu else CPU_BATCH,
        gpu_layers=overrides.gpu_layers if gpu or overrides.gpu_layers > 0 else 0,
        fit=bool(gpu) and overrides.gpu_layers < 0,
        prompt_cache=cache // MIB,
        kv_bytes=slots * context * kv,
    )


def _share(tokens: int, header: Header, machine: Machine, overrides: Overrides) -> tuple[int, int]:
    """Slots, and tokens for each, out of the tokens that memory has room for."""
    trained = header.context_length or WINDOW
    if overrides.context:
        context = overrides.context
        if header.context_length and context > trained:
            raise EngineError(
                f"These weights were made for {trained:,} tokens of context, and {context:,} were "
                "asked for: set context to that or less."
            )
        slots = overrides.slots or max(1, min(_most_slots(machine), tokens // context))
        return slots, context
    context = min(WINDOW, trained)
    if overrides.slots:
        return overrides.slots, max(LEAST_WINDOW, min(context, tokens // overrides.slots))
    slots = min(_most_slots(machine), tokens // context)
    if slots >= 2:
        return slots, context
    if tokens // 2 >= min(SMALL_WINDOW, context):
        return 2, min(context, tokens // 2)
    return 1, min(context, tokens)


def _refuse_the_impossible(weights: int, slots: int, context: int, kv: int, memory: int) -> None:
    """What a user asked for may be more than there is. The header gives an upper bound: weights
    with sliding windows need half of it, so that only what is beyond doubt is refused."""
    needed = weights + slots * context * kv // 2
    if needed > memory:
        raise EngineError(
            f"{slots} slots of {context:,} tokens need more than {_gb(needed)} of memory with "
            f"these weights, and {_gb(memory)} are free: set slots or context to less."
        )


def _most_slots(machine: Machine) -> int:
    """Beyond these, more streams at once no longer give more tokens in all, only slower ones."""
    return 4 if machine.cores <= 4 else 8


def _gpu_memory(devices: Sequence[Device]) -> int:
    """Free bytes on the GPUs; an integrated one counts only where there is no other."""
    own = sum(device.free for device in devices if device.kind == "gpu")
    return own or sum(device.free for device in devices if device.kind == "igpu")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _control_groups() -> Iterator[Path]:
    """This process's control group (version 2) and those around it, innermost first."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        if line.startswith("0::"):
            root = Path("/sys/fs/cgroup")
            group = root / line[3:].lstrip("/")
            yield group
            yield from (outer for outer in group.parents if outer.is_relative_to(root))


def _cores_of(group: Path) -> int | None:
    """Whole cores of a CPU quota, at least 1; None without a quota."""
    words = _words(group / "cpu.max")
    if len(words) != 2 or not words[0].isdecimal() or not words[1].isdecimal():
        return None
    return max(1, int(words[0]) // max(1, int(words[1])))


def _memory_left(group: Path) -> int | None:
    """Bytes below the group's limit, counting file pages that can be dropped; None without one."""
    limit, used = _words(group / "memory.max"), _words(group / "memory.current")
    if not limit or not limit[0].isdecimal() or not used:
        return None
    words = _words(group / "memory.stat")
    stat = dict(zip(words[::2], words[1::2], strict=False))
    droppable = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    return max(0, int(limit[0]) - int(used[0]) + droppable)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # the root group has no such files, version 1 neither
        return []
