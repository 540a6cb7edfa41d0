"""The real server, which also tells the bench how its embedded engine is reached directly.

    python -m bench.engine_host serve --home HOME --port PORT ...

It takes flags as `ouzel serve` does, each with its value, and is that command but for one thing:
when the server listens, it writes the engine's own address and key to HOME/engine.json, readable
by this user only. The key is made anew in each process and reaches nobody else.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ouzel import config
from ouzel.build import serving
from ouzel.build.engine import Plan, plan_engine
from ouzel.build.report import Progress, Report
from ouzel.engines.local import LocalEngine


class _Telling(Report):
    """Writes steps to the log, and at the end where the engine is."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.plan: Plan | None = None

    def planning(self, settings: config.Settings, report: Report) -> Plan:
        """`plan_engine`, remembering what it gave."""
        self.plan = plan_engine(settings, report)
        return self.plan

    def step(self, text: str) -> None:
        print(text, flush=True)

    def done(self, text: str = "") -> None:
        print(f"  done {text}", flush=True)

    def download(self, progress: Progress) -> None:
        """Progress is for people; here nobody watches."""

    def ready(self, url: str, model: str, aliases: tuple[str, ...]) -> None:
        if self.plan is None or not isinstance(self.plan.engine, LocalEngine):
            raise TypeError("only the embedded engine has an address of its own")
        # Nothing in the server needs to know these two, so nothing offers them.
        life = self.plan.engine._life
        if life is None:
            raise RuntimeError("the engine ended while the server started")
        told = {"url": str(life._client.root) + "/v1", "key": life._client.secret}
        descriptor = os.open(self._home / "engine.json", os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(told, file)


def main() -> None:
    """Serve until stopped."""
    names, values = sys.argv[2::2], sys.argv[3::2]
    flags = {
        name.removeprefix("--").replace("-", "_"): value
        for name, value in zip(names, values, strict=True)
    }
    settings = config.load(flags)
    report = _Telling(settings.home)
    vars(serving)["plan_engine"] = report.planning
    serving.serve(settings, report)


if __name__ == "__main__":
    main()
