"""Turns declared settings into flags, so that no flag is ever written by hand.

A command takes its flags by name of setting; all arrive as text and are read by `config`, which
words every error the same, wherever a value came from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ouzel.config import SETTINGS, expected, flag, kind_of, load, variable, with_unit

DEBUG = "ouzel.debug"
"""Key in the context's `meta`: show tracebacks."""

_METAVARS = {int: "NUMBER", float: "NUMBER", Path: "PATH", tuple: "LIST", str: "TEXT"}


def with_settings(command: Callable[..., None], names: Iterable[str]) -> Callable[..., None]:
    """Give a command flags for settings.

    Args:
        command: called as `command(settings, **own)`, where `own` are its other parameters.
        names: the settings that become flags; `--config` always does.

    Returns:
        A function whose signature has the command's own parameters and then the flags.
    """
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.name != "settings"
    ]
    flags = [_parameter(name) for name in names]

    def run(ctx: typer.Context, config: Path | None = None, **given: Any) -> None:
        texts = {each.name: given.pop(each.name) for each in flags}
        settings = load(texts, config=config)
        ctx.meta[DEBUG] = settings.log_level == "debug"
        command(settings=settings, **given)

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for each in (context, *own, _config_parameter(), *flags)
    ]
    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _parameter(name: str) -> inspect.Parameter:
    meta = SETTINGS[name]
    option = typer.Option(
        flag(name),
        metavar=_METAVARS[kind_of(name)],
        help=f"{meta.help} [dim]{_default(name)}[/dim]",
        rich_help_panel=meta.group,
        show_default=False,
    )
    return _keyword(name, Annotated[str | None, option])


def _default(name: str) -> str:
    meta = SETTINGS[name]
    choices = f"; {expected(name)}" if meta.choices else ""
    return f"(default: {with_unit(meta.shown, meta)}{choices}; {variable(name)})"


def _config_parameter() -> inspect.Parameter:
    option = typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file with settings. [dim](default: ouzel.toml in the home; OUZEL_CONFIG)[/dim]",
        rich_help_panel="State",
        show_default=False,
    )
    return _keyword("config", Annotated[Path | None, option])


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )
