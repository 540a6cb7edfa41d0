"""What the machine has: limits count, and what is no limit does not."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from ouzel.build.machine import free_for, look, nearest_existing


def test_it_finds_this_machine() -> None:
    machine = look()
    assert 1 <= machine.cores <= (psutil.cpu_count() or 1)
    assert 0 < machine.available <= machine.memory <= psutil.virtual_memory().total
    assert machine.system


@pytest.mark.parametrize(
    ("text", "limited"),
    [("1000000000\n", True), ("max\n", False), ("", False), ("9223372036854771712", False)],
)
def test_a_containers_limit_counts(tmp_path: Path, text: str, limited: bool) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(text)
    machine = look((tmp_path / "missing", limit))
    assert machine.memory == (1_000_000_000 if limited else look(()).memory)
    assert machine.available <= machine.memory


def test_a_folder_that_is_not_there_yet_is_on_its_parents_disk(tmp_path: Path) -> None:
    missing = tmp_path / "a" / "b"
    assert nearest_existing(missing) == tmp_path
    assert nearest_existing(tmp_path) == tmp_path
    assert nearest_existing(Path("no/such/folder")) == Path.cwd()
    assert free_for(missing) > 0
