"""Settings -> the engine that they ask for, weights fetched and checked.

A script, a server elsewhere, or weights in the embedded engine: exactly one of them. Nothing
here starts anything but downloads; `serving` starts the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ouzel.build.report import Report
from ouzel.config import Settings
from ouzel.core.contracts import Engine
from ouzel.core.errors import OuzelError
from ouzel.engines.scripted import ScriptedEngine, ScriptError, load_script


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be started.

    Args:
        starting: what start-up says while the engine comes up.
        aliases: further names under which its model is served.
    """

    engine: Engine
    starting: str
    aliases: tuple[str, ...]


class PlanError(OuzelError):
    """The settings name an engine that cannot be made."""


def plan_engine(settings: Settings, report: Report) -> Plan:
    """The engine for these settings, not yet started.

    Raises:
        OuzelError: weights cannot be fetched or read, or a script is not right.
    """
    if settings.script is not None:
        return _scripted(settings.script)
    if settings.engine_url is not None:
        return _upstream(settings, settings.engine_url)
    return _embedded(settings, report)


def _scripted(path: Path) -> Plan:
    try:
        script = load_script(path)
    except ScriptError as error:
        raise PlanError(str(error)) from error
    return Plan(ScriptedEngine(script), f"Playing the script {path.name}", ())
