"""`ouzel chat`: a conversation on the terminal, kept by the server.

Each answer continues the one before through `previous_response_id`, so that nothing is sent twice.
Lines come from readline, with its editing and history; what starts with a slash is a command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ouzel.cli import output
from ouzel.cli.ask import EffortOption, InstructionsOption, KeyOption, ModelOption, UrlOption
from ouzel.cli.flags import with_settings
from ouzel.cli.output import Failed
from ouzel.config import Settings

if TYPE_CHECKING:
    from ouzel.cli.client import Server
    from ouzel.cli.showing import Writer

_EPILOG = """Examples:

[bold]ouzel chat[/bold]

[bold]ouzel chat -i "Answer in one sentence."[/bold]

In the chat, [bold]/help[/bold] lists the commands."""

_HISTORY_LINES = 1000


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog=_EPILOG)(with_settings(chat, ()))


def chat(
    settings: Settings,
    url: UrlOption = None,
    key: KeyOption = None,
    model: ModelOption = None,
    instructions: InstructionsOption = None,
    effort: EffortOption = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Show text as it comes, without Markdown.")
    ] = False,
) -> None:
    """Talk with a running server.

    Ctrl-C stops an answer, Ctrl-D leaves. The server keeps the conversation.
    """
    from ouzel.cli.client import find_server

    conversation = Conversation(find_server(settings, url, key), model, instructions, plain, effort)
    conversation.connect()
    terminal = sys.stdin.isatty()
    if terminal:
        output.note(f"Talking with {conversation.model}. /help lists commands, Ctrl-D leaves.")
    with _line_editing(settings.home / "chat_history", terminal):
        for text in _lines("you> " if terminal else ""):
            try:
                if text.startswith("/") and not text.startswith("//"):
                    if not _command(conversation, text):
                        return
                else:
                    conversation.say(text.removeprefix("/") if text.startswith("//") else text)
            except Failed as error:
                # A script that is piped in should not go on as if nothing had happened.
                if not terminal:
                    raise
                output.fail(str(error))


class Conversation:
    """What was said so far, and where.

    Args:
        server: who answers.
        model: what is asked for; None takes what the server names first.
        instructions: sent along with every turn.
        plain: text as it comes instead of rendered Markdown.
        effort: how much to think before each answer; None leaves it to the server.
    """

    def __init__(
        self,
        server: Server,
        model: str | None,
        instructions: str | None,
        plain: bool,
        effort: str | None = None,
    ) -> None:
        self._server = server
        self._plain = plain or not sys.stdout.isatty()
        self.previous: str | None = None
        self.model = model or ""
        self.models: list[str] = []
        self.instructions = instructions
        self.effort = effort
        self.turns: list[tuple[str, str]] = []

    def connect(self) -> None:
        """Make sure that the server is there, and learn what it serves. Raises Failed."""
        import asyncio

        self.models = asyncio.run(self._models())
        self.model = self.model or self.models[0]

    def forget(self) -> None:
        """Start over; the server keeps what was said."""
        self.previous = None
        self.turns.clear()

    def say(self, text: str) -> None:
        """One turn. Raises Failed; then, and after Ctrl-C, the turn is not part of the talk."""
        import asyncio

        from ouzel.cli.showing import Markdown, Plain, conclude

        writer = _Recorder(Plain() if self._plain else Markdown(output.out()))
        try:
            final = asyncio.run(self._turn(text, writer))
        except KeyboardInterrupt:
            output.note("Stopped; this exchange is not part of the conversation.")
            return
        finally:
            writer.end()
        conclude(final)
        self.previous = str(final["id"])
        self.turns.append((text, writer.recorded))

    async def _models(self) -> list[str]:
        from ouzel.cli.client import Client

        async with Client(self._server) as client:
            return await client.models()

    async def _turn(self, text: str, writer: Writer) -> dict[str, Any]:
        from ouzel.cli.client import Client
        from ouzel.cli.showing import watch

        body: dict[str, Any] = {"model": self.model, "input": text, "store": True}
        if self.previous:
            body["previous_response_id"] = self.previous
        if self.instructions:
            body["instructions"] = self.instructions
        if self.effort:
            body["reasoning"] = {"effort": self.effort}
        async with (
            Client(self._server) as client,
            aclosing(client.stream(body)) as events,
        ):
            return await watch(events, writer)


class _Recorder:
    """A writer that remembers the text it passes on."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.recorded = ""

    def text(self, piece: str) -> None:
        self.recorded += piece
        self._writer.text(piece)

    def thinking(self, piece: str) -> None:
        self._writer.thinking(piece)

    def end(self) -> None:
        self._writer.end()


def _lines(prompt: str) -> Iterator[str]:
    """What is typed, until Ctrl-D; several lines between two lines of three quotes are one."""
    block: list[str] | None = None
    while True:
        try:
            line = input(prompt if block is None else "... " if prompt else "")
        except EOFError:
            if prompt:
                print()
            return
        except KeyboardInterrupt:
            block = None
            output.note("\nCtrl-D leaves.")
            continue
        except UnicodeDecodeError:
            raise Failed("Standard input is not UTF-8 text.") from None
        if line.strip() == '"""':
            text, block = ("\n".join(block), None) if block is not None else ("", [])
        elif block is not None:
            block.append(line)
            continue
        else:
            text = line
        if text.strip():
            yield text.strip()


@contextmanager
def _line_editing(history: Path, terminal: bool) -> Iterator[None]:
    """Editing and history from readline, where Python has it; the file is for this user only."""
    if not terminal:
        yield
        return
    try:
        import readline
    except ImportError:
        yield
        return
    if history.exists():
        readline.read_history_file(history)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
        readline.write_history_file(history)


def _command(conversation: Conversation, line: str) -> bool:
    """Carry out a slash command; False leaves the chat."""
    name, _, rest = line.partition(" ")
    if name in ("/quit", "/exit"):
        return False
    if name not in _COMMANDS:
        raise Failed(f"There is no command {name}; /help lists them, // sends a slash.")
    _COMMANDS[name][1](conversation, rest.strip())
    return True


def _help(_conversation: Conversation, _rest: str) -> None:
    lines = [f"{name:<16}{about}" for name, (about, _) in _COMMANDS.items()]
    lines.append(f"{'/quit':<16}leave; so does Ctrl-D")
    lines.append('Three quotes (""") on a line of their own begin and end a text of several lines.')
    output.note("\n".join(lines))


def _new(conversation: Conversation, _rest: str) -> None:
    conversation.forget()
    output.note("A new conversation.")


def _model(conversation: Conversation, rest: str) -> None:
    if rest and rest not in conversation.models:
        raise Failed(f"{rest} is not served; there is {', '.join(conversation.models)}.")
    conversation.model = rest or conversation.model
    others = [name for name in conversation.models if name != conversation.model]
    tail = f"; also served: {', '.join(others)}" if others and not rest else ""
    output.note(f"Talking with {conversation.model}{tail}.")


def _system(conversation: Conversation, rest: str) -> None:
    if rest:
        conversation.instructions = None if rest == "none" else rest
    output.note(f"Instructions: {conversation.instructions or 'none'}")


def _save(conversation: Conversation, rest: str) -> None:
    if not rest:
        raise Failed("Say where: /save FILE")
    path = Path(rest).expanduser()
    parts = [f"## You\n\n{asked}\n\n## {conversation.model}\n\n{answer}" for asked, answer in
             conversation.turns]  # fmt: skip
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write("\n\n".join(parts) + "\n")
    except FileExistsError:
        raise Failed(f"{path} exists; name another file.") from None
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}.") from None
    output.note(f"Saved {len(conversation.turns)} turns to {path}.")


_COMMANDS: dict[str, tuple[str, Callable[[Conversation, str], None]]] = {
    "/help": ("this list", _help),
    "/new": ("forget what was said and start over", _new),
    "/model": ("show, or with a name change, the model", _model),
    "/system": ("show, or with a text set, the instructions; `none` clears them", _system),
    "/save": ("write the conversation to a new Markdown file", _save),
}
