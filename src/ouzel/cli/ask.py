"""`ouzel ask`: one question to a running server, the answer streamed to standard output."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ouzel.cli.flags import with_settings
from ouzel.cli.output import Failed
from ouzel.config import Settings

if TYPE_CHECKING:
    from ouzel.cli.client import Server

_EPILOG = """Examples:

[bold]ouzel ask "Why is the sky blue?"[/bold]

[bold]cat error.log | ouzel ask "What went wrong here?"[/bold]

[bold]ouzel ask --effort high "A farmer has 17 sheep. All but 9 run away. How many are left?"[/bold]

[bold]ouzel ask --json "Name a colour." | jq .usage[/bold]"""

UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Another server than the settings' own."),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", help="Its bearer key, if it is not OUZEL_API_KEY."),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME", help="Default: what is served.")
]
InstructionsOption = Annotated[
    str | None,
    typer.Option("--instructions", "-i", metavar="TEXT", help="How the model should answer."),
]
EffortOption = Annotated[
    str | None,
    typer.Option(
        "--effort",
        "-e",
        metavar="EFFORT",
        help="How much to think first: none, minimal, low, medium (default) or high.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=_EPILOG)(with_settings(ask, ()))


def ask(
    settings: Settings,
    question: Annotated[str | None, typer.Argument(help="What to ask.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    model: ModelOption = None,
    instructions: InstructionsOption = None,
    effort: EffortOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the response object.")] = False,
) -> None:
    """Ask a running server one question.

    Text that is piped in comes after the question.
    """
    from ouzel.cli.client import find_server

    text = "\n\n".join(part for part in (question, _piped()) if part)
    if not text.strip():
        raise Failed('Say what to ask: ouzel ask "Why is the sky blue?"')
    body: dict[str, Any] = {"input": text, "store": False}
    if instructions:
        body["instructions"] = instructions
    if effort:
        body["reasoning"] = {"effort": effort}
    import asyncio

    asyncio.run(_ask(find_server(settings, url, key), model, body, as_json))


def _piped() -> str:
    """Text on standard input, if it is not a keyboard."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    try:
        return sys.stdin.buffer.read().decode().strip("\n")
    except UnicodeDecodeError:
        raise Failed("Standard input is not UTF-8 text.") from None


async def _ask(server: Server, model: str | None, body: dict[str, Any], as_json: bool) -> None:
    from ouzel.cli.client import Client
    from ouzel.cli.showing import Plain, Silent, conclude, watch

    async with Client(server) as client:
        body["model"] = model or (await client.models())[0]
        writer = Silent() if as_json else Plain()
        try:
            async with aclosing(client.stream(body)) as events:
                final = await watch(events, writer)
        finally:
            writer.end()
    if as_json:
        print(json.dumps(final, ensure_ascii=False, indent=2))
    conclude(final)
