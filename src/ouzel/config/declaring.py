"""How a setting is declared: a default, a line of help, a group, bounds.

The settings themselves are in `settings.py`; where their values come from, `reading.py` knows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

PREFIX = "OUZEL_"
CONFIG_VARIABLE = "OUZEL_CONFIG"
CONFIG_FILE = "ouzel.toml"
DEFAULT_SOURCE = "default"

_T = TypeVar("_T")


class SettingsError(Exception):
    """A setting is unknown, malformed, out of bounds, or contradicts another.

    Args:
        message: one sentence that names the setting, where it came from, and what would be right.
            It never holds the value of a secret.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Meta:
    """What a declaration says about a setting beyond its name and type.

    Args:
        help: one line for `--help` and the docs.
        group: heading under which it is listed.
        low, high: inclusive bounds of a number.
        choices: the only values allowed.
        secret: never printed, neither in errors nor in `doctor`.
        unit: what a number counts (`seconds`, `MB`, ...).
        shown: how the default is written for people.
    """

    help: str
    group: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    unit: str = ""
    shown: str = ""


def setting(
    default: _T, about: str, *, group: str, factory: Callable[[], _T] | None = None, **more: Any
) -> _T:
    """Declare a setting; returns a dataclass field that passes for a value of its type."""
    shown = more.pop("shown", None) or text_of(default)
    meta = {"setting": Meta(help=about, group=group, shown=shown, **more)}
    show = not more.get("secret", False)
    if factory is not None:
        return field(default_factory=factory, metadata=meta, repr=show)
    return field(default=default, metadata=meta, repr=show)


def text_of(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def home_folder(name: str) -> Path:
    """A path below the user's home folder. Raises SettingsError where there is none."""
    try:
        return Path.home() / name
    except RuntimeError:
        raise SettingsError(
            "This user has no home folder; set OUZEL_HOME and OUZEL_CACHE to folders that exist."
        ) from None


ADDRESS = functools.partial(setting, group="Address")
STATE = functools.partial(setting, group="State")
MODEL = functools.partial(setting, group="Model")
ENGINE = functools.partial(setting, group="Embedded engine")
UPSTREAM = functools.partial(setting, group="Upstream engine")
CODE = functools.partial(setting, group="Code and files")
KEEPING = functools.partial(setting, group="What is kept")
LIMIT = functools.partial(setting, group="Limits")
