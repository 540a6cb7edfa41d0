"""Looks at everything the server stands on, and says what to do about each problem.

Each check yields findings and raises nothing that it can name; `cli` shows them. Nothing is
changed: no download, no repair, and what is written to see whether it can be is removed again.
"""

from __future__ import annotations

import errno
import json
import socket
import sqlite3
import stat
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import filelock

from ouzel.build.code import check_code
from ouzel.build.engine_checks import check_engine
from ouzel.build.finding import Finding
from ouzel.build.machine import free_for, look, nearest_existing
from ouzel.config import SETTINGS, Settings
from ouzel.engines.weights import readable

_ASK_WITHIN = 3.0
"""Seconds for whoever holds the port to say who it is."""
_LITTLE_ROOM = 1_000_000_000
"""Free bytes below which the state's disk is worth a remark."""


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
    free = free_for(folder)
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


def _store(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    folder = nearest_existing(home)
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
    yield from _claimed(settings)
    database = home / "ouzel.db"
    if database.exists():
        yield _database(database)


def _claimed(settings: Settings) -> Iterator[Finding]:
    """Two servers cannot share a home; the server that runs at our own address is no surprise."""
    lock = settings.home / "serving.lock"
    if not lock.exists():
        return
    try:
        with filelock.FileLock(lock, timeout=0, mode=0o600):
            return
    except filelock.Timeout:
        if _ouzel_at(settings) is None:
            advice = "Stop it, or give this one a home of its own: --home, OUZEL_HOME."
            text = f"another Ouzel serves from {settings.home}"
            yield Finding("store", "home", "problem", text, advice)


def _database(path: Path) -> Finding:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as found:
            found.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (shrinks,) = found.execute("PRAGMA auto_vacuum").fetchone()
    except sqlite3.Error as error:
        advice = "Move it away: the server makes a new one. What was kept in it is then gone."
        return Finding("store", "database", "problem", f"{path} cannot be read: {error}", advice)
    text = f"{path}, {readable(path.stat().st_size)}, SQLite {sqlite3.sqlite_version}"
    if not shrinks:
        text += "; an older version made it, so what was deleted may still be in it"
        advice = "Stop the server and run, once: ouzel gc --vacuum"
        return Finding("store", "database", "note", text, advice)
    return Finding("store", "database", "ok", text)


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


_CHECKS: tuple[Check, ...] = (_machine, _settings, check_engine, check_code, _store, _address)
