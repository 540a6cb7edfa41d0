"""The scripted replies that the HTTP suites ask for, and the requests that ask for them.

One script serves all suites; a request picks its reply by its input. The scripted engine gives a
token for each word, so how many deltas a stream must have is known beforehand.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.baseline import Canned
from bench.load import Target
from bench.processes import Served
from bench.wire import Kind, fault

_WORDS = ("the", "server", "keeps", "every", "word", "before", "it", "lets", "it", "go")


def text_of(words: int) -> str:
    """So many words, one token each."""
    return " ".join(_WORDS[place % len(_WORDS)] for place in range(words))


@dataclass(frozen=True)
class Reply:
    """One reply of the script.

    Args:
        name: the input that asks for it.
        words: how many tokens it has.
        delay: seconds before each token; 0 gives all at once.
        pause: seconds of silence after the last one.
    """

    name: str
    words: int
    delay: float = 0.0
    pause: float = 0.0


SHORT = Reply("short", 10)
BURST = Reply("burst", 50)
PACED = Reply("paced", 50, 0.001)
LONG = Reply("long", 200, 0.02)


def write_script(
    path: Path, replies: Iterable[Reply] = (SHORT, BURST, PACED, LONG), context: int = 8192
) -> Path:
    """Write the script with these replies to a file; the file's path."""
    lines = ['model = "bench"', f"context_window = {context}", ""]
    for reply in replies:
        pause = f", {{ pause = {reply.pause} }}" if reply.pause else ""
        step = f'{{ say = "{text_of(reply.words)}", delay = {reply.delay} }}'
        lines += ["[[reply]]", f'match = "^{reply.name}$"', f"steps = [{step}{pause}]", ""]
    path.write_text("\n".join(lines))
    return path


@dataclass(frozen=True)
class Ask:
    """One kind of request.

    Args:
        kind: protocol, and whether it streams.
        reply: what is asked for.
        store: whether it is kept; Chat Completions are asked with `store: false` either way
            unless this says otherwise.
    """

    kind: Kind
    reply: Reply
    store: bool = False

    @property
    def path(self) -> str:
        """The endpoint."""
        return "/v1/chat/completions" if self.kind.startswith("chat") else "/v1/responses"

    @property
    def body(self) -> str:
        """JSON of the request."""
        asked: dict[str, object] = {"model": "bench", "store": self.store}
        if self.kind.startswith("chat"):
            asked["messages"] = [{"role": "user", "content": self.reply.name}]
        else:
            asked["input"] = self.reply.name
        asked["stream"] = self.kind in ("stream", "chat-stream")
        return json.dumps(asked)

    @property
    def label(self) -> str:
        """For the table and as the baseline's path."""
        return f"{self.kind}-{self.reply.name}-{'stored' if self.store else 'unstored'}"

    def target(self, served: Served, path: str | None = None) -> Target:
        """This request to that server, as the load generator wants it."""
        text = text_of(self.reply.words)
        return Target(served.port, path or self.path, self.body, self.kind, text, self.reply.words)


def canned(served: Served, ask: Ask) -> Canned:
    """Ask once, and make of the reply what the baseline sends: the same bytes, as often cut.

    Raises:
        RuntimeError: the reply was not right.
    """
    request = urllib.request.Request(
        served.url + ask.path, ask.body.encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        body = reply.read()
        wrong = fault(ask.kind, reply.status, body, text_of(ask.reply.words), ask.reply.words)
    if wrong is not None:
        raise RuntimeError(f"{ask.label}: {wrong}")
    path = f"/{ask.label}"
    if ask.kind in ("plain", "chat"):
        return Canned(path, [body.decode()])
    chunks = cut(body.decode()) if ask.reply.delay else [body.decode()]
    return Canned(path, chunks, ask.reply.delay, "text/event-stream")


def cut(stream: str) -> list[str]:
    """A stream in as many chunks as it has deltas, one in each; joined they are the stream."""
    chunks = [""]
    seen = False
    for event in stream.split("\n\n")[:-1]:
        if "output_text.delta" in event or '"content":"' in event:
            if seen:
                chunks.append("")
            seen = True
        chunks[-1] += event + "\n\n"
    return chunks
