"""The command line: `ouzel serve`, `ask`, `chat`, `pull`, `models`, `doctor`, `version`.

It reads settings, shows things to people and speaks the public HTTP API; the server itself is
`build`'s. Heavy imports stay inside the commands that need them, so that `ouzel --help` is quick.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line on the process's arguments; leaves through SystemExit."""
    from ouzel.cli.app import app

    app(prog_name="ouzel")
