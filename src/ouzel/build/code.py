"""Settings -> a place where model-written code runs, or the reason why there is none.

What takes long comes first, before the server listens: the interpreter's environment is made, once,
and the jail is tried. Code never runs outside of a jail: where none works there is no tool.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ouzel.build.finding import Finding
from ouzel.build.machine import look, nearest_existing
from ouzel.build.report import Report
from ouzel.config import Settings
from ouzel.core.contracts_files import Files
from ouzel.core.errors import OuzelError
from ouzel.sandbox.container_settings import ContainerSettings, most_live_in
from ouzel.sandbox.containers import SandboxContainers
from ouzel.sandbox.environment import Interpreter, ensure_interpreter, find_interpreter
from ouzel.sandbox.jail import Jail, Mode, find_jail

OFF: Final = "Running code is switched off on this server (setting code_interpreter)."
_AREA: Final = "code"


@dataclass(frozen=True, slots=True)
class CodePlan:
    """What code would run in.

    Args:
        jail: how it is kept in; None where nothing does.
        interpreter: what runs it.
        why_not: a sentence for clients, where code cannot be run.
    """

    jail: Jail | None = None
    interpreter: Interpreter | None = None
    why_not: str = ""


def plan_code(settings: Settings, report: Report) -> CodePlan:
    """Make sure that code can be run; may take a minute the first time.

    Raises:
        OuzelError: it cannot, and the settings say that it must.
    """
    if settings.code_interpreter == "off":
        return CodePlan(why_not=OFF)
    report.step("Preparing the code interpreter")
    try:
        jail = _find(settings, settings.home / "containers")
        interpreter = ensure_interpreter(settings.cache, report.advance)
    except OuzelError as error:
        if settings.code_interpreter == "on":
            raise
        report.done(f"off: {error.message}")
        return CodePlan(why_not=f"Code cannot be run on this server: {error.message}")
    report.done(f"kept in by {jail.mode}")
    return CodePlan(jail, interpreter)


def open_containers(settings: Settings, plan: CodePlan, files: Files) -> SandboxContainers | None:
    """The containers' room, not yet started; None where code cannot be run."""
    if plan.jail is None or plan.interpreter is None:
        return None
    bounds = ContainerSettings(
        most_live=settings.containers or most_live_in(look().memory),
        memory_mb=settings.container_memory_mb,
        disk_mb=settings.container_disk_mb,
    )
    home = settings.home / "containers"
    return SandboxContainers(home, plan.jail, plan.interpreter, files, bounds)


def check_code(settings: Settings) -> Iterator[Finding]:
    """What `doctor` says of it. A jail is tried; nothing is installed."""
    if settings.code_interpreter == "off":
        yield Finding(_AREA, "interpreter", "note", "switched off", "Set code_interpreter to auto.")
        return
    try:
        with tempfile.TemporaryDirectory(dir=nearest_existing(settings.home)) as scratch:
            # Its own folder is closed to others, and a jail of root's has to come through.
            Path(scratch).chmod(0o711)
            jail = _find(settings, Path(scratch))
    except (OuzelError, OSError) as error:
        reason = error.message if isinstance(error, OuzelError) else error.strerror
        grade: Literal["problem", "note"] = (
            "problem" if settings.code_interpreter == "on" else "note"
        )
        text = f"code is not run here: {reason}"
        yield Finding(_AREA, "sandbox", grade, text, "docs/sandbox.md says what it needs.")
    else:
        yield Finding(_AREA, "sandbox", "ok", jail.mode)
        for name, fact in jail.describe():
            yield Finding(_AREA, name, "ok", fact)
    found = find_interpreter(settings.cache)
    if found is None:
        text = "its environment is not set up yet; the first start does that"
        yield Finding(_AREA, "interpreter", "note", text, "Start the server once, with a network.")
    else:
        yield Finding(_AREA, "interpreter", "ok", str(found.folder))


def _wanted(settings: Settings) -> Mode | None:
    """The way that is asked for, None for any."""
    match settings.sandbox:
        case "bubblewrap":
            return "bubblewrap"
        case "landlock":
            return "landlock"
    return None


def _find(settings: Settings, scratch: Path) -> Jail:
    """The jail, tried. Raises OuzelError."""
    return find_jail(scratch, prefer=_wanted(settings), group=settings.sandbox_group)
