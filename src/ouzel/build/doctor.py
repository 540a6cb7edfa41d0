"""Looks at everything the server stands on, and says what to do about each problem.

Each check yields findings and raises nothing that it can name; `cli` shows them. Nothing is
changed: no download, no repair, and what is written to see whether it can be is removed again.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ouzel.build.machine import Machine, look
from ouzel.build.report import Progress
from ouzel.config import SETTINGS, Settings
from ouzel.core.errors import OuzelError, WeightsError
from ouzel.engines.weights import (
    NotPulled,
    ResolvedModel,
    fits,
    load_catalogue,
    readable,
    resolve,
)

Level = Literal["ok", "note", "problem"]
_IMPORT_WITHIN = 60.0
"""Seconds for importing the engine; seconds suffice, a cold disk may need more."""
_ASK_WITHIN = 3.0
"""Seconds for whoever holds the port to say who it is."""
_LITTLE_ROOM = 1_000_000_000
"""Free bytes below which the state's disk is worth a remark."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Args:
        area: `machine`, `settings`, `engine`, `store` or `address`.
        name: what was looked at.
        level: `problem` if the server cannot run as configured, `note` for what should be known.
        text: what was found.
        advice: what to do; never empty for a problem.
    """

    area: str
    name: str
    level: Level
    text: str
    advice: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings) -> Iterator[Finding]:
    """Run every check, yielding what it finds as it is found."""
    for check in _CHECKS:
        yield from check(settings)


def _machine(settings: Settings) -> Iterator[Finding]:
    machine = look()
    python = sys.version.split()[0]
    yield Finding("machine", "python", "ok", f"{python} ({sys.executable})")
    yield Finding("machine", "system", "ok", f"{machine.system}, {machine.cores} cores")
    memory = f"{readable(machine.memory)}, {readable(machine.available)} of it available"
    yield Finding("machine", "memory", "ok", memory)
    for name in ("home", "cache"):
        yield _room(name, getattr(settings, name))


def _room(name: str, folder: Path) -> Finding:
    free = shutil.disk_usage(_nearest_existing(folder)).free
    text = f"{readable(free)} free for {folder}"
    if free >= _LITTLE_ROOM:
        return Finding("machine", f"disk of {name}", "ok", text)
    return Finding(
        "machine", f"disk of {name}", "note", text, f"Make room, or set OUZEL_{name.upper()}."
    )


def _settings(settings: Settings) -> Iterator[Finding]:
    """A file that holds a key should be its owner's alone."""
    for path in sorted({source.rpartition(": ")[0] for source in _secret_sources(settings)}):
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        if path and mode & 0o077:
            yield Finding(
                "settings",
                "file",
                "note",
                f"{path} holds a key and others may read it (mode {mode:o})",
                f"chmod 600 {path}",
            )


def _secret_sources(settings: Settings) -> Iterator[str]:
    for name, meta in SETTINGS.items():
        source = settings.source(name)
        if meta.secret and source.endswith(f": {name}"):
            yield source


def _engine(settings: Settings) -> Iterator[Finding]:
    if settings.script is not None:
        yield _script(settings.script)
    elif settings.engine_url is not None:
        yield _upstream(settings, settings.engine_url)
    else:
        machine = look()
        yield _processor(machine)
        yield _library()
        yield from _weights(settings, machine)


def _processor(machine: Machine) -> Finding:
    if machine.avx2 is False:
        return Finding(
            "engine",
            "processor",
            "problem",
            "has no AVX2, which the embedded engine is built for",
            "Use another machine, or a server elsewhere: --engine-url URL.",
        )
    text = "has AVX2" if machine.avx2 else "AVX2 is not asked for, or cannot be told"
    return Finding("engine", "processor", "ok", text)


def _library() -> Finding:
    """Import llama.cpp in its own process: a build for another processor kills who loads it."""
    code = "import importlib.metadata as m, xllamacpp; print(m.version('xllamacpp'))"
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own words
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_IMPORT_WITHIN,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"cannot be imported within {_IMPORT_WITHIN:.0f} s"
    else:
        if done.returncode == 0:
            return Finding("engine", "library", "ok", f"xllamacpp {done.stdout.strip()}")
        said = done.stderr.strip().splitlines() or [f"the import ended with {done.returncode}"]
        why = f"cannot be imported: {said[-1]}"
    advice = f"Install it again: {sys.executable} -m pip install --force-reinstall xllamacpp"
    return Finding("engine", "library", "problem", why, advice)


def _weights(settings: Settings, machine: Machine) -> Iterator[Finding]:
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
        entry, wanted = missing.entry, missing.entry.size_bytes
        free = shutil.disk_usage(_nearest_existing(settings.cache)).free
        text = f"{name} is not on disk; {readable(wanted)} to fetch"
        if wanted > free:
            advice = f"Only {readable(free)} are free: make room, or set OUZEL_CACHE."
            yield Finding("engine", "weights", "problem", text, advice)
        else:
            advice = f"`ouzel serve` fetches it, or now: ouzel pull {entry.name}"
            yield Finding("engine", "weights", "note", text, advice)
        yield _memory(fits(entry, machine.memory), readable(entry.memory_bytes))
    except WeightsError as error:
        advice = "Choose weights with --model; `ouzel models` lists what there is."
        yield Finding("engine", "weights", "problem", error.message, advice)
    else:
        yield from _found(found, machine)


def _found(found: ResolvedModel, machine: Machine) -> Iterator[Finding]:
    text = f"{found.name}, {readable(found.size_bytes)} at {found.path}"
    yield Finding("engine", "weights", "note" if found.warning else "ok", text, found.warning or "")
    entry = found.entry
    needed = readable(entry.memory_bytes) if entry else f"more than {readable(found.size_bytes)}"
    yield _memory(fits(entry or found.size_bytes, machine.memory), needed)


def _memory(fit: Literal["fits", "tight", "no"], needed: str) -> Finding:
    text = f"the weights take {needed}"
    if fit == "fits":
        return Finding("engine", "memory", "ok", text)
    advice = "Choose smaller weights (`ouzel models`), or a smaller --context."
    level: Level = "note" if fit == "tight" else "problem"
    return Finding("engine", "memory", level, f"{text}, which this machine hardly has", advice)


def _script(path: Path) -> Finding:
    from ouzel.engines.scripted import ScriptError, load_script

    try:
        script = load_script(path)
    except ScriptError as error:
        return Finding("engine", "script", "problem", str(error), "Correct it, or leave it out.")
    return Finding("engine", "script", "ok", f"{path} plays {script.model}")


def _upstream(settings: Settings, url: str) -> Finding:
    from ouzel.build.engine import plan_engine

    async def reach() -> str:
        engine = plan_engine(settings, _Quiet()).engine
        try:
            await engine.start()
            info = engine.info
            able = ", ".join(sorted(info.capabilities)) or "nothing beyond text"
            return f"{url} serves {info.model}, {info.context_window} tokens, {able}"
        finally:
            await engine.stop()

    try:
        text = asyncio.run(reach())
    except OuzelError as error:
        advice = "Start that server, or correct the engine_... settings."
        return Finding("engine", "upstream", "problem", error.message, advice)
    return Finding("engine", "upstream", "ok", text)


class _Quiet:
    """A `Report` that nobody hears: reaching an engine elsewhere has no steps worth telling."""

    def step(self, text: str) -> None:
        """Nothing."""

    def done(self, text: str = "") -> None:
        """Nothing."""

    def download(self, progress: Progress) -> None:
        """Nothing."""

    def ready(self, url: str, model: str, aliases: tuple[str, ...]) -> None:
        """Nothing."""


def _store(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    folder = _nearest_existing(home)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"ouzel")
            file.flush()
    except OSError as error:
        advice = f"Make {folder} writable, or set OUZEL_HOME to a folder that is."
        yield Finding(
            "store", "folder", "problem", f"{folder} cannot be written: {error.strerror}", advice
        )
        return
    yield Finding("store", "folder", "ok", f"{home} can be written")
    database = home / "ouzel.db"
    if database.exists():
        yield _database(database)


def _database(path: Path) -> Finding:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as found:
            found.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        advice = "Move it away: the server makes a new one. What was kept in it is then gone."
        return Finding("store", "database", "problem", f"{path} cannot be read: {error}", advice)
    size = readable(path.stat().st_size)
    return Finding("store", "database", "ok", f"{path}, {size}, SQLite {sqlite3.sqlite_version}")


def _address(settings: Settings) -> Iterator[Finding]:
    host, port = settings.host, settings.port
    where = f"{host}, port {port}"
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            # As the server does, so that connections of a server that just ended do not count.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            yield _occupied(settings, where)
            return
        advice = "Choose an address of this machine and a port above 1023: --host, --port."
        yield Finding(
            "address", "port", "problem", f"cannot listen on {where}: {error.strerror}", advice
        )
        return
    yield Finding("address", "port", "ok", f"{where} is free")


def _occupied(settings: Settings, where: str) -> Finding:
    version = _ouzel_at(settings)
    if version is not None:
        return Finding("address", "port", "note", f"an Ouzel ({version}) runs at {where}")
    advice = "Stop what listens there, or choose another port: --port, OUZEL_PORT."
    return Finding("address", "port", "problem", f"{where} is in use by another program", advice)


def _ouzel_at(settings: Settings) -> str | None:
    """The version of the Ouzel that listens at the settings' address, if it is one."""
    request = f"{settings.local_url}/health"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=_ASK_WITHIN) as reply:
            said = json.loads(reply.read(65_536))
        return str(said["version"]) if "engine" in said else None
    except (OSError, ValueError, KeyError, TypeError, urllib.error.HTTPError):
        return None  # whatever it is, it does not answer as an Ouzel


def _nearest_existing(folder: Path) -> Path:
    for each in (folder, *folder.parents):
        if os.path.lexists(each):
            return each
    return Path(folder.anchor)


_CHECKS: tuple[Check, ...] = (_machine, _settings, _engine, _store, _address)
