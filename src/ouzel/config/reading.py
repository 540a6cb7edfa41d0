"""Reads the settings: a flag beats a variable, a variable the file, the file the default.

An unknown variable or key is an error, never ignored. Flags arrive as a mapping of strings, so
this file knows no command line; it touches nothing but the environment and one TOML file.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ouzel.config.declaring import (
    CONFIG_FILE,
    CONFIG_VARIABLE,
    PREFIX,
    SettingsError,
    home_folder,
)
from ouzel.config.settings import (
    SETTINGS,
    Settings,
    flag,
    is_optional,
    kind_of,
    variable,
    wrong,
)

_NUMBER = {
    int: r"[+-]?[0-9]+",
    float: r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?",
}


def load(
    flags: Mapping[str, str | None] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """Read the settings from everywhere.

    Args:
        flags: setting name -> text given on the command line; None where a flag was not given.
        environ: the environment; the process's own by default.
        config: the TOML file; without it `OUZEL_CONFIG`, then `<home>/ouzel.toml` if it exists.

    Raises:
        SettingsError: see the class.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    layers = [
        (name, text, flag(name)) for name, text in (flags or {}).items() if text is not None
    ] + _from_environment(environ)
    for name, text, source in layers:
        if name not in values:
            values[name], sources[name] = _from_text(name, text, source), source
    path = _config_path(config, environ, values.get("home"))
    if path is not None:
        for name, value in _read_file(path).items():
            source = f"{path}: {name}"
            if name not in SETTINGS:
                raise SettingsError(f"{path}: unknown key {name!r}.{_nearest(name, SETTINGS)}")
            if name not in values:
                values[name], sources[name] = _from_toml(name, value, source, path.parent), source
    return Settings(**values, sources=sources)


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    known = {variable(name): name for name in SETTINGS}
    found = []
    for key, text in environ.items():
        if not key.startswith(PREFIX) or key == CONFIG_VARIABLE:
            continue
        if key not in known:
            raise SettingsError(
                f"Unknown environment variable {key}.{_nearest(key, [*known, CONFIG_VARIABLE])}"
            )
        found.append((known[key], text, key))
    return found


def _config_path(config: Path | None, environ: Mapping[str, str], home: Path | None) -> Path | None:
    """The settings file, or None. One that was asked for is returned even if it is missing."""
    if config is not None:
        return config.expanduser().absolute()
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE]).expanduser().absolute()
    standard = (home or home_folder(".ouzel")) / CONFIG_FILE
    return standard if standard.exists() else None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise SettingsError(f"Settings file {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"Settings file {path} is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"Settings file {path} is not valid TOML: {error}.") from None


def _from_text(name: str, text: str, source: str) -> Any:
    """Parse a flag or variable. Empty unsets what may be unset, and is an error elsewhere."""
    kind = kind_of(name)
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if not text:
        if is_optional(name):
            return None
        raise wrong(name, text, source)
    if kind is Path:
        return _path(Path(text), Path.cwd(), source)
    if kind is str:
        return text
    if len(text) > 64 or not re.fullmatch(_NUMBER[kind], text.strip()):
        raise wrong(name, text, source)
    return kind(text.strip())


def _from_toml(name: str, value: Any, source: str, base: Path) -> Any:
    """Check a TOML value's type; relative paths start at the file's own folder."""
    kind = kind_of(name)
    if kind is tuple and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if kind in (int, float) and isinstance(value, int) and not isinstance(value, bool):
        return kind(value)
    if kind is float and isinstance(value, float):
        return value
    if kind is Path and isinstance(value, str) and value:
        return _path(Path(value), base, source)
    if kind in (str, Path, tuple) and isinstance(value, str):
        return _from_text(name, value, source)
    raise wrong(name, value, source)


def _path(path: Path, base: Path, source: str) -> Path:
    try:
        return base / path.expanduser()
    except RuntimeError:
        raise SettingsError(
            f"{source}: {str(path)!r} names a home folder that is unknown."
        ) from None


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else " Known: " + ", ".join(known) + "."
