"""Names the commands and turns what goes wrong into one sentence and an exit code.

0: done. 1: it did not work, or `doctor` found a problem. 2: the command line or a setting is
wrong. 130: stopped with Ctrl-C. What the commands do is in their own files.
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ouzel.cli import archive, ask, chat, doctor, gc, models, output, sealing, serve
from ouzel.cli.flags import DEBUG
from ouzel.config import SettingsError, load


class _Group(TyperGroup):
    """Runs a command; a failure is one red sentence, a traceback only at log level debug."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        # Its own help is plain: rich's help takes longer to import than all the rest. The
        # commands' help, where there are many flags to lay out, keeps it.
        self.rich_markup_mode = None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            output.fail(error.message)
            raise typer.Exit(2) from error
        except (KeyboardInterrupt, BrokenPipeError, RuntimeError) as error:
            # Typer's own exits are RuntimeErrors too.
            if type(error) is RuntimeError:
                _explain(error, ctx)
                raise typer.Exit(1) from error
            raise
        except Exception as error:
            if type(error).__module__.startswith("typer."):
                raise
            _explain(error, ctx)
            raise typer.Exit(1) from error


def _explain(error: Exception, ctx: typer.Context) -> None:
    if _debugging(ctx):
        traceback.print_exception(error)
    if _expected(error):
        output.fail(str(error))
        return
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    hint = "" if _debugging(ctx) else " OUZEL_LOG_LEVEL=debug shows where."
    output.fail(f"{text}. This is a bug in Ouzel.{hint}")


def _expected(error: Exception) -> bool:
    if isinstance(error, output.Failed | OSError):
        return True
    from ouzel.build.report import OuzelError

    return isinstance(error, OuzelError)


def _debugging(ctx: typer.Context) -> bool:
    if DEBUG not in ctx.meta:
        try:
            ctx.meta[DEBUG] = load().log_level == "debug"
        except SettingsError:
            ctx.meta[DEBUG] = False
    return bool(ctx.meta[DEBUG])


app = typer.Typer(
    cls=_Group,
    help="Ouzel serves the OpenAI API over open weights on your own machine.",
    epilog='First time: `ouzel serve`, then, in another terminal: ouzel ask "Why is the sky blue?"',
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


serve.add_to(app)
ask.add_to(app)
chat.add_to(app)
models.add_to(app)
doctor.add_to(app)
sealing.add_to(app)
gc.add_to(app)
archive.add_to(app)


@app.command(epilog="Example: [bold]ouzel version[/bold]")
def version(
    short: Annotated[bool, typer.Option("--short", help="Only the number.")] = False,
) -> None:
    """Show the version."""
    from importlib.metadata import version as version_of

    number = version_of("ouzel")
    if short:
        typer.echo(number)
        return
    typer.echo(f"ouzel {number}")
    typer.echo(f"python {sys.version.split()[0]}")
    typer.echo(f"xllamacpp {version_of('xllamacpp')}")
