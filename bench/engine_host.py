"""The real server, which also tells the bench how its embedded engine is reached directly.

    python -m bench.engine_host serve --home HOME --port PORT ...

It takes flags as `ouzel serve` does, each with its value, and is that command but for one thing:
when the server listens, it writes the engine's own address and key to HOME/asked.json, readable
by this user only. The key is made anew in each process, and nothing in the server offers it: it
is taken note of where the server begins to speak to its engine.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ouzel import build, config
from ouzel.build.report import Report
from ouzel.engines.upstream import UpstreamEngine


class _Engine:
    """Where the engine is that the server spoke to last."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.key: str | None = None

    def listen(self) -> None:
        """Take note of every engine that is spoken to from now on."""
        begin = UpstreamEngine.__init__

        def noting(itself: UpstreamEngine, url: str, **more: Any) -> None:
            self.url, self.key = url, more["key"]
            begin(itself, url, **more)

        vars_of_class: Any = UpstreamEngine
        vars_of_class.__init__ = noting


class _Telling(Report):
    """Writes the steps to the log, and at the end where the engine is."""

    def __init__(self, home: Path, engine: _Engine) -> None:
        self._home = home
        self._engine = engine

    def step(self, text: str) -> None:
        print(text, flush=True)

    def done(self, text: str = "") -> None:
        print(f"  done {text}", flush=True)

    def download(self, progress: object) -> None:
        """For people who wait; here nobody watches."""

    def ready(self, url: str, model: str, aliases: tuple[str, ...]) -> None:
        if self._engine.url is None:
            raise RuntimeError("the server speaks to no engine of its own")
        address = self._engine.url.rstrip("/").removesuffix("/v1") + "/v1"
        descriptor = os.open(self._home / "asked.json", os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"url": address, "key": self._engine.key}, file)


def main() -> None:
    """Serve until stopped."""
    names, values = sys.argv[2::2], sys.argv[3::2]
    flags = {
        name.removeprefix("--").replace("-", "_"): value
        for name, value in zip(names, values, strict=True)
    }
    settings = config.load(flags)
    engine = _Engine()
    engine.listen()
    build.serve(settings, _Telling(settings.home, engine))


if __name__ == "__main__":
    main()
