"""What `doctor` asks of the engine that the settings name: a script, a server elsewhere, weights.

The embedded engine's library is loaded by the engine's own worker process, which reports and ends:
so the check walks the way that the server will, and a library that crashes takes nobody along.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ouzel.build import ability_checks
from ouzel.build.engine import plan_engine
from ouzel.build.finding import Finding, Level
from ouzel.build.machine import Machine, free_for, look
from ouzel.config import Settings
from ouzel.core.contracts import EngineInfo
from ouzel.core.errors import EngineError, OuzelError, WeightsError
from ouzel.engines.machine import Device, Overrides, choose, survey
from ouzel.engines.weights import (
    NotPulled,
    Progress,
    ResolvedModel,
    fits,
    load_catalogue,
    readable,
    resolve,
)

_LOAD_WITHIN = 60.0
"""Seconds for loading the library; it takes less than one, from a cold disk a few."""


class Hello(msgspec.Struct, frozen=True):
    """What the engine's worker says first: see `engines.worker`."""

    library: str
    devices: list[Device]


def check_engine(settings: Settings) -> Iterator[Finding]:
    """Whether the engine that the settings name could be started."""
    if settings.script is not None:
        yield from _script(settings, settings.script)
    elif settings.engine_url is not None:
        yield from _upstream(settings, settings.engine_url)
    else:
        machine = look()
        yield processor(machine)
        finding, devices = library()
        yield finding
        yield from weights(settings, machine, devices)


def processor(machine: Machine) -> Finding:
    """Whether it has the instructions that the library was built for."""
    if machine.avx2 is False:
        return Finding(
            "engine",
            "processor",
            "problem",
            "has no AVX2, which the embedded engine is built for",
            "Use another machine, or a server elsewhere: --engine-url URL.",
        )
    text = "has AVX2" if machine.avx2 else "AVX2 is not needed here, or cannot be told"
    return Finding("engine", "processor", "ok", text)


def library(python: str = sys.executable) -> tuple[Finding, Sequence[Device]]:
    """Whether the engine's worker loads llama.cpp, and the devices that it finds.

    Args:
        python: the interpreter that runs the worker.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [python, "-P", "-m", "ouzel.engines.worker"],
            capture_output=True,
            timeout=_LOAD_WITHIN,
            stdin=subprocess.DEVNULL,  # at its end, so the worker reports and leaves
            check=False,
        )
        hello = msgspec.json.decode(done.stdout.partition(b"\n")[0], type=Hello)
    except subprocess.TimeoutExpired:
        why = f"was not loaded within {_LOAD_WITHIN:.0f} s"
    except OSError as error:
        why = f"its process cannot be started: {error.strerror}"
    except msgspec.DecodeError:
        why = _failure(done)
    else:
        names = ", ".join(device.name for device in hello.devices)
        found = f"xllamacpp {hello.library}, computes on {names}"
        return Finding("engine", "library", "ok", found), hello.devices
    advice = f"Install it again: {python} -m pip install --force-reinstall xllamacpp"
    return Finding("engine", "library", "problem", why, advice), ()


def _failure(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why a worker ended without its report: its own words, the last of its log, or a signal."""
    text = done.stdout.decode(errors="replace").strip()
    if text.startswith("{"):
        return str(json.loads(text.splitlines()[0]).get("reason", text))
    said = done.stderr.decode(errors="replace").strip().splitlines()
    ended = f"its process ended with {done.returncode}"
    return f"{ended}: {said[-1]}" if said else ended


def weights(settings: Settings, machine: Machine, devices: Sequence[Device]) -> Iterator[Finding]:
    """Whether the weights that the settings name are there, whole, and fit into memory."""
    try:
        catalogue = load_catalogue(settings.home)
    except WeightsError as error:
        advice = f"Correct {settings.home / 'catalogue.toml'}, or remove it."
        yield Finding("engine", "catalogue", "problem", error.message, advice)
        return
    name = settings.model or catalogue.default.name
    try:
        found = resolve(name, catalogue, settings.cache)
    except NotPulled as missing:
        entry = missing.entry
        yield _missing(entry.name, entry.size_bytes, settings.cache)
        yield _memory(fits(entry, machine.memory), readable(entry.memory_bytes))
    except WeightsError as error:
        advice = "Choose weights with --model; `ouzel models` lists what there is."
        yield Finding("engine", "weights", "problem", error.message, advice)
    else:
        text = f"{found.name}, {readable(found.size_bytes)} at {found.path}"
        level: Level = "note" if found.warning else "ok"
        yield Finding("engine", "weights", level, text, found.warning or "")
        yield _plan(settings, found, devices)
        yield from ability_checks.of_weights(settings, found)


def _missing(name: str, size: int, cache: Path) -> Finding:
    text = f"{name} is not on disk; {readable(size)} to fetch"
    free = free_for(cache)
    if size > free:
        advice = f"Only {readable(free)} are free: make room, or set OUZEL_CACHE."
        return Finding("engine", "weights", "problem", text, advice)
    advice = f"`ouzel serve` fetches it, or now: ouzel pull {name}"
    return Finding("engine", "weights", "note", text, advice)


def _memory(fit: Literal["fits", "tight", "no"], needed: str) -> Finding:
    text = f"the weights take {needed}"
    if fit == "fits":
        return Finding("engine", "memory", "ok", text)
    advice = "Choose smaller weights (`ouzel models`), or a smaller --context."
    if fit == "tight":
        return Finding("engine", "memory", "note", f"{text}, nearly all that there is", advice)
    return Finding("engine", "memory", "problem", f"{text}, more than there is", advice)


def _plan(settings: Settings, found: ResolvedModel, devices: Sequence[Device]) -> Finding:
    """How the engine would be set up, by the very function that decides it at start."""
    overrides = Overrides(settings.context, settings.slots, settings.threads, settings.gpu_layers)
    try:
        plan = choose(found.header, found.size_bytes, survey(), devices, overrides)
    except EngineError as error:
        advice = "Choose smaller weights (`ouzel models`), or change the engine's settings."
        return Finding("engine", "memory", "problem", error.message, advice)
    text = f"slots: {plan.slots}, tokens in each: {plan.context:,}, threads: {plan.threads}"
    return Finding("engine", "set-up", "ok", text)


def _script(settings: Settings, path: Path) -> Iterator[Finding]:
    try:
        info = plan_engine(settings, _Quiet()).engine.info
    except OuzelError as error:
        advice = "Correct it, or leave it out."
        yield Finding("engine", "script", "problem", error.message, advice)
        return
    yield Finding("engine", "script", "ok", f"{path} plays {info.model}")
    yield from ability_checks.of_script(info)


def _upstream(settings: Settings, url: str) -> Iterator[Finding]:
    async def reach() -> EngineInfo:
        engine = plan_engine(settings, _Quiet()).engine
        try:
            await engine.start()
            return engine.info
        finally:
            await engine.stop()

    try:
        info = asyncio.run(reach())
    except OuzelError as error:
        advice = "Start that server, or correct the engine_... settings."
        yield Finding("engine", "upstream", "problem", error.message, advice)
        return
    text = f"{url} serves {info.model}, {info.context_window} tokens"
    yield Finding("engine", "upstream", "ok", text)
    yield from ability_checks.of_running(info)


class _Quiet:
    """A `Report` that nobody hears: reaching an engine elsewhere has no steps worth telling."""

    def step(self, text: str) -> None:
        """Nothing."""

    def done(self, text: str = "") -> None:
        """Nothing."""

    def download(self, progress: Progress) -> None:
        """Nothing."""

    def advance(self, text: str, done: int, total: int) -> None:
        """Nothing."""

    def ready(self, url: str, model: str, aliases: tuple[str, ...]) -> None:
        """Nothing."""
