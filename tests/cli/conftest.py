"""A real server playing a script, for the commands that talk to one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import terminals

SCRIPT = r"""
model = "scripted"

[[reply]]
match = "slowly"
steps = [{ say = "word ", repeat = 2000, delay = 0.05 }]

[[reply]]
match = "think"
steps = [{ think = "Let me see." }, { say = "Thought: {input}" }]

[[reply]]
match = "markdown"
steps = [{ say = "# A title\n\nSome **bold** text.\n\n```python\nprint(1)\n\nprint(2)\n```\n" }]

[[reply]]
match = "escape"
steps = [{ say = "\u001b]0;owned\u0007\u001b[2Jclean" }]

[[reply]]
match = "die"
steps = [{ say = "half of it " }, { die = "The engine went away." }]

[[reply]]
match = "limit"
steps = [{ say = "cut" }, { stop = "length" }]

[[reply]]
match = "nothing"
steps = []

[[reply]]
steps = [{ say = "You said: {input}" }]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home folder with nothing in it."""
    folder = tmp_path / "user"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "script.toml"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory, script: Path) -> Iterator[str]:
    """Base URL of a running server, `/v1` included."""
    folder = tmp_path_factory.mktemp("server")
    process = subprocess.Popen(
        [*terminals.OUZEL, "serve", "--port", "0", "--script", str(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=terminals.environment(folder),
    )
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"listens at (\S+)", line):
                yield found[1]
                break
        else:
            pytest.fail(f"the server did not start: {lines}")
    finally:
        process.terminate()
        process.stdout.close()
        process.wait(terminals.PATIENCE)
