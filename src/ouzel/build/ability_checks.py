"""What `doctor` says of what the served engine can: a line for each ability, and how it was seen.

A script says it itself, a server elsewhere is asked on the spot, and for weights the server's own
notes are read: to look again, they would have to be loaded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from ouzel.build.engine import decided_style
from ouzel.build.finding import Finding
from ouzel.config import Settings
from ouzel.core.contracts import EngineInfo
from ouzel.engines.local_notes import Notes, about, read_notes
from ouzel.engines.upstream_probe import style_of
from ouzel.engines.weights import ResolvedModel

AREA: Final = "abilities"
_CAN: Final = "can "


def of_running(info: EngineInfo) -> Iterator[Finding]:
    """Of an engine that was started and probed just now."""
    seen: dict[str, str] = {
        name.removeprefix(_CAN): how for name, how in info.detail if name.startswith(_CAN)
    }
    for named in sorted(info.capabilities - set(seen)):
        seen[named] = "yes: set (engine_capabilities)"
    for name, how in seen.items():
        yield Finding(AREA, name, "ok", how)
    yield Finding(AREA, "tool style", "ok", info.tool_style)


def of_script(info: EngineInfo) -> Iterator[Finding]:
    """Of a scripted engine, which is what its script says."""
    can = ", ".join(sorted(info.capabilities)) or "nothing beyond text"
    yield Finding(AREA, "script", "ok", f"{can}, as the script says")
    yield Finding(AREA, "thinking", "ok", info.thinks)
    yield Finding(AREA, "tool style", "ok", info.tool_style)


def of_weights(settings: Settings, found: ResolvedModel) -> Iterator[Finding]:
    """Of weights that are on disk: as the server saw it when it loaded them last."""
    notes = read_notes(settings.home)
    unversioned = about(found.path, "").rstrip()
    if notes is None or not notes.about.startswith(unversioned):
        text = "not known yet: the server finds out when it loads these weights for the first time"
        yield Finding(AREA, "weights", "ok", text)
        return
    day = time.strftime("%Y-%m-%d", time.localtime(notes.seen_at))
    version = notes.about.removeprefix(unversioned).split()[0]
    yield Finding(AREA, "weights", "ok", f"as seen on {day}, with xllamacpp {version}")
    for name, how in notes.findings.seen:
        yield Finding(AREA, name, "ok", how)
    pace = f"{notes.pace.prefill:.0f} tokens a second read, {notes.pace.decode:.0f} generated"
    yield Finding(AREA, "pace", "ok", pace)
    yield from _against_the_catalogue(settings, found, notes)


def _against_the_catalogue(
    settings: Settings, found: ResolvedModel, notes: Notes
) -> Iterator[Finding]:
    """The style that is used, and what the catalogue expected and was not seen."""
    entry = found.entry
    expected = entry.tool_style if entry is not None else None
    style = style_of(notes.findings.capabilities, decided_style(settings), expected)
    if expected is None or expected == style:
        yield Finding(AREA, "tool style", "ok", style)
    else:
        why = "set" if decided_style(settings) is not None else "no call came when it was tried"
        text = f"{style} ({why}); the catalogue says {expected}"
        yield Finding(AREA, "tool style", "note", text, "Set tool_style to choose for yourself.")
    if entry is not None and (entry.thinking == "native") != (notes.findings.thinks != "no"):
        text = f"{notes.findings.thinks}; the catalogue says {entry.thinking}"
        yield Finding(AREA, "thinking as expected", "note", text)
