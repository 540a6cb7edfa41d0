"""Settings: declared once (`settings`), read once (`reading`), frozen.

This room imports nothing of ours and no third-party library.
"""

from ouzel.config.declaring import CONFIG_VARIABLE, Meta, SettingsError
from ouzel.config.reading import load
from ouzel.config.settings import (
    SETTINGS,
    Settings,
    expected,
    flag,
    is_loopback,
    kind_of,
    variable,
    with_unit,
)

__all__ = [
    "CONFIG_VARIABLE",
    "SETTINGS",
    "Meta",
    "Settings",
    "SettingsError",
    "expected",
    "flag",
    "is_loopback",
    "kind_of",
    "load",
    "variable",
    "with_unit",
]
