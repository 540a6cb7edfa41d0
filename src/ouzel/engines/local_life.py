"""One life of the embedded engine: a process that has loaded its weights and answers.

`begin` brings one about, `Life` keeps what belongs to it together, watches whether it still
answers, and takes it down. That there may be another life after it, only `local` knows.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from ouzel.core.contracts import Capability, EngineInfo, ToolStyle
from ouzel.core.errors import EngineError, OuzelError, RequestError, WeightsError
from ouzel.core.request import Sampling
from ouzel.core.turns import Turn
from ouzel.engines.local_child import Child, ChildError
from ouzel.engines.local_notes import about, read_notes, write_notes
from ouzel.engines.local_prefix import Shelf, warm
from ouzel.engines.machine import MIB, Device, EnginePlan, Overrides, choose, survey
from ouzel.engines.pace import PaceMeter
from ouzel.engines.upstream import Timeouts, UpstreamEngine
from ouzel.engines.upstream_client import Client
from ouzel.engines.upstream_exchange import Exchange
from ouzel.engines.upstream_probe import Findings, Prober, style_of
from ouzel.engines.weights.gguf import Header, check_complete

_log = logging.getLogger(__name__)

SAMPLING: Final[frozenset[Capability]] = frozenset(
    {"logprobs", "logit_bias", "seed", "stop", "penalties"}
)
"""What llama.cpp honours whatever the weights: tried with the real engine, and the tests try it
again. The rest depends on the weights and their template, and is found out in the first life."""

CONNECTIONS: Final = 256
"""Turns that a process is given at once. llama.cpp keeps a thread for each."""

SPARE_CONNECTIONS: Final = 16
"""Threads for our own questions: were all of them busy, the process would look hung."""

BOOT: Final = 60.0
"""Seconds until Python and llama.cpp's library are loaded in the new process."""

LOAD: Final = 120.0
LOAD_RATE: Final = 20e6
"""Loading may take so many seconds, and one more for each so many bytes of weights."""

ASK: Final = 10.0
"""Seconds for a first question to a process that has just said that it is ready."""

PROBE_WITHIN: Final = 60.0
"""Seconds for one of the tiny requests that find out what the weights can."""

FAREWELL: Final = 2.0
"""Seconds in which a process ends by itself when it is told to."""

PROBES: Final = 4
"""Signs of life that must be missing one after the other before a process counts as hung."""


class Line(Client):
    """The connections to the process.

    Every turn asks for reports of progress while its prompt is read. Nobody looks at them, but
    they make the process write to the connection after each step, and so notice that the other
    end is gone. It looks for that by itself only after a second in which it had no result for
    *any* turn: beside others that generate, a prompt that nobody waits for was read to its end.
    """

    async def exchange(self, body: dict[str, object]) -> Exchange:
        """As in `Client`."""
        return await super().exchange({**body, "return_progress": True})


@dataclass(frozen=True, slots=True)
class Birth:
    """What every life of an engine begins with.

    Args:
        path: the weights, the first file where they are split.
        served_as: the name that clients see.
        home: folder for state: the process's log, notes on the weights, saved prefixes.
        overrides: what the user decided.
        timeouts: how long an answer may take.
        meter: keeps the pace, from one life to the next.
        tool_style: what the user says of how the model is brought to call tools.
        expected: what the catalogue says of it.
        warm: turns whose prompts every slot should hold before the first request.
        defaults: the sampling where a request leaves it open.
        findings: what the weights can, None until it was found out.
    """

    path: Path
    served_as: str
    home: Path
    overrides: Overrides
    timeouts: Timeouts
    meter: PaceMeter
    tool_style: ToolStyle | None = None
    expected: ToolStyle | None = None
    warm: tuple[Turn, ...] = ()
    defaults: Sampling = Sampling(temperature=1.0, top_p=1.0)
    findings: Findings | None = None

    @property
    def log(self) -> Path:
        """The process's log."""
        return self.home / "logs" / "engine.log"

    @property
    def prefixes(self) -> Path:
        """Saved prefixes."""
        return self.home / "prefixes"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A process that has loaded the weights.

    Args:
        about: which weights, in which library.
    """

    plan: EnginePlan
    facts: tuple[tuple[str, str], ...]
    address: str
    key: str
    about: str


@dataclass(frozen=True, slots=True)
class Life:
    """A process that answers. Made by `begin`; `end` it, always.

    Args:
        speaker: turns go through it.
        line: the connections that the speaker uses.
        plan: how the process was set up.
        window: tokens that one request may use, as the process itself says.
        findings: what the weights can.
        facts: short facts for people that do not change during this life.
        took: seconds that loading took.
    """

    child: Child
    speaker: UpstreamEngine
    plan: EnginePlan
    window: int
    findings: Findings
    facts: tuple[tuple[str, str], ...]
    took: float
    line: Line

    def info(self, birth: Birth, created_at: float, restarts: int) -> EngineInfo:
        """What the engine is in this life."""
        changing = (
            ("resident memory", _mib(self._resident())),
            ("process", str(self.child.pid)),
            ("restarts", str(restarts)),
        )
        found = self.findings
        style = style_of(found.capabilities, *_styles(birth))
        return EngineInfo(
            model=birth.served_as,
            context_window=self.window,
            capabilities=found.capabilities,
            created_at=created_at,
            detail=(
                *self.facts,
                *changing,
                ("tool style", _style_said(style, birth)),
                *((f"can {name}", how) for name, how in found.seen),
            ),
            defaults=birth.defaults,
            thinks=found.thinks,
            tool_style=style,
            slots=self.plan.slots,
        )

    async def over(self, hung_after: float) -> str:
        """Wait until the process has ended or hangs, and say which, in half a sentence.

        Args:
            hung_after: seconds without an answer after which it hangs.
        """
        gone = asyncio.create_task(self.child.gone())
        hung = asyncio.create_task(self._silence(hung_after))
        try:
            await asyncio.wait({gone, hung}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            hung.cancel()
            await asyncio.gather(gone, hung, return_exceptions=True)
        if self.child.alive:
            self.child.kill()
            return f"it gave no sign of life for {hung_after:g} s and was killed"
        return self.child.obituary()

    async def end(self, grace: float) -> None:
        """Take it down: the process within `grace` seconds, then what speaks to it."""
        try:
            await self.child.end(grace)
        finally:
            await self.speaker.stop()
            await self.line.close()

    async def _silence(self, hung_after: float) -> None:
        """Return when nothing was answered for so many seconds.

        It asks for the slots, which the thread that computes has to answer between two steps (or
        beside one): an answer says more than that the process is scheduled. After a pause of the
        whole machine the first question may fail by its age, so one failure is not enough.
        """
        pace = hung_after / PROBES
        missing, heard = 0, time.monotonic()
        while True:
            await asyncio.sleep(pace)
            try:
                await self.line.call("/slots", within=pace)
            except OuzelError as error:
                missing += 1
                _log.debug("The engine's process did not answer: %s", error)
                if missing >= 2 and time.monotonic() - heard >= hung_after:
                    return
            else:
                missing, heard = 0, time.monotonic()

    def _resident(self) -> int:
        try:
            return int(psutil.Process(self.child.pid).memory_info().rss)
        except psutil.Error:
            return 0


async def begin(birth: Birth) -> Life:
    """Start a process and load the weights into it.

    Raises:
        EngineError: it does not come up; the message says why and where its log is.
    """
    began = time.monotonic()
    try:
        header, size = await asyncio.to_thread(_inspect, birth.path)
    except WeightsError as error:
        raise EngineError(error.message) from error
    child = await Child.spawn(birth.log)
    try:
        loaded = await _load(child, birth, header, size)
        return await _connect(child, birth, loaded, began)
    except BaseException as error:
        await child.end(0)
        if isinstance(error, ChildError):
            raise EngineError(
                f"The engine could not load {birth.path.name}: {error}. Its log is {birth.log}."
            ) from None
        raise


def _inspect(path: Path) -> tuple[Header, int]:
    """The header of the weights, and the bytes of all their files. Raises WeightsError."""
    header = check_complete(path)
    index, count = header.split
    size = header.file_bytes
    if count > 1:  # named by llama.cpp: NAME-00001-of-00003.gguf
        stem = path.name.removesuffix(f"-{index + 1:05d}-of-{count:05d}.gguf")
        for each in range(count):
            if each != index:
                part = path.with_name(f"{stem}-{each + 1:05d}-of-{count:05d}.gguf")
                size += check_complete(part).file_bytes
    return header, size


async def _load(child: Child, birth: Birth, header: Header, size: int) -> Loaded:
    """Have the process load."""
    hello = await child.hear("started", BOOT)
    devices = [Device(**each) for each in hello["devices"]]
    plan = choose(header, size, survey(), devices, birth.overrides)
    key = secrets.token_urlsafe(32)
    settings: dict[str, Any] = {
        "weights": str(birth.path),
        "name": birth.served_as,
        "key": key,
        "connections": CONNECTIONS + SPARE_CONNECTIONS,
        "log": str(birth.log),
        "prefixes": f"{_folder(birth.prefixes)}/",
        "plan": plan.as_json(),
    }
    await child.tell(settings)
    await child.hear("loading", BOOT)
    address = (await child.hear("ready", LOAD + size / LOAD_RATE))["address"]
    facts = (
        ("engine", f"llama.cpp in xllamacpp {hello['library']}"),
        ("weights", birth.path.name),
        ("computes on", ", ".join(device.name for device in devices)),
        ("threads", str(plan.threads)),
        ("slots", str(plan.slots)),
        ("cache of all slots", _mib(plan.kv_bytes)),
        ("prompt cache", f"up to {plan.prompt_cache} MiB"),
    )
    return Loaded(plan, facts, address, key, about(birth.path, hello["library"]))


def _folder(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"{path} cannot be made: {error.strerror}.") from error
    return path


async def _connect(child: Child, birth: Birth, loaded: Loaded, began: float) -> Life:
    """Speak to the process for the first time."""
    line = Line(loaded.address, loaded.key, birth.timeouts)
    speaker: UpstreamEngine | None = None
    try:
        reply = (await line.call("/props", within=ASK)).json()
        try:
            window = int(reply["default_generation_settings"]["n_ctx"])  # type: ignore[index]
        except (TypeError, KeyError, ValueError):
            raise ChildError("it does not say how large its context is") from None
        found = birth.findings or await _find_out(line, birth, loaded.about)
        speaker = UpstreamEngine(
            loaded.address,
            key=loaded.key,
            model=birth.served_as,
            served_as=birth.served_as,
            context_window=window,
            findings=found,
            timeouts=birth.timeouts,
            client=line,
            meter=birth.meter,
        )
        await speaker.start()
        facts = (*loaded.facts, ("context of a request", f"{window} tokens"))
        if birth.warm and style_of(found.capabilities, *_styles(birth)) == "guided":
            slots = loaded.plan.slots
            shelf = Shelf(birth.prefixes, loaded.about, birth.served_as, slots)
            how = await warm(line, shelf, birth.warm, found.dialect, birth.meter)
            facts = (*facts, ("fixed prefix", how))
    except BaseException as error:
        await line.close()
        if speaker is not None:
            await speaker.stop()
        if isinstance(error, EngineError | RequestError):
            raise ChildError(f"it does not answer: {error.message.rstrip('.')}") from None
        raise
    took = time.monotonic() - began
    return Life(child, speaker, loaded.plan, window, found, facts, took, line)


def _styles(birth: Birth) -> tuple[ToolStyle | None, ToolStyle | None]:
    """What is said of the way to tool calls: by the user, and by the catalogue."""
    return birth.tool_style, birth.expected


async def _find_out(line: Line, birth: Birth, known: str) -> Findings:
    """What the weights can: from an earlier start, or by asking."""
    led = "guided" in (birth.tool_style, birth.expected) and birth.tool_style != "native"
    known += " led" if led else ""
    notes = await asyncio.to_thread(read_notes, birth.home)
    prober = Prober(line, birth.served_as, PROBE_WITHIN, "llamacpp", birth.meter)
    if notes is not None and notes.about == known:
        birth.meter.suppose(notes.pace)
        await prober.pace()  # the machine may be busier, or less so, than it was then
        return notes.findings
    found = await prober.of_the_model(SAMPLING, led=led)
    await asyncio.to_thread(write_notes, birth.home, known, birth.path, found, birth.meter.pace)
    return found


def _style_said(style: ToolStyle, birth: Birth) -> str:
    if birth.tool_style is not None:
        return f"{style}: set (tool_style)"
    if birth.expected is None:
        return f"{style}: as calls came, or did not"
    if birth.expected != style:
        return f"{style}: the catalogue says {birth.expected}, but no call came when it was tried"
    return f"{style}: as the catalogue says"


def _mib(size: int) -> str:
    return f"{size // MIB} MiB"
