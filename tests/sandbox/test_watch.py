"""Measuring and trimming folders that hostile code has filled, and when a watch speaks up."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

from ouzel.sandbox.watch import OWN_BYTES, OWN_FILES, CellLimits, measure, over, trim, watch

MB = 2**20
LIMITS = CellLimits(memory=100 * MB, work_bytes=MB, work_files=50, disk_floor=0)


def test_links_are_not_followed_and_holes_count(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "inner").mkdir(parents=True)
    (tmp_path / "large").write_bytes(bytes(3 * MB))
    (work / "link").symlink_to(tmp_path / "large")
    (work / "loop").symlink_to(work)
    (work / "away").symlink_to(tmp_path)
    os.mkfifo(work / "pipe")
    assert measure(work, LIMITS).size < MB
    assert measure(work, LIMITS).files == 5
    assert over([work], LIMITS) == ""
    with (work / "inner" / "holes").open("wb") as file:
        file.truncate(2 * MB)
    assert "more than 1 MB" in over([work], LIMITS)
    assert over([tmp_path / "missing"], LIMITS) == ""


def test_the_newest_go_first_and_only_as_many_as_must(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(bytes(MB // 2))
    time.sleep(0.06)
    since = time.time_ns()
    time.sleep(0.06)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(bytes(MB // 4))
        time.sleep(0.03)
    # A file's own time is the code's to choose; it does not count.
    os.utime(tmp_path / "c", (0, 0))
    assert trim(tmp_path, LIMITS, since) == ("c",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "old"]
    assert trim(tmp_path, LIMITS, since) == ()
    assert trim(tmp_path, replace(LIMITS, work_bytes=MB // 4), since) == ("b", "a")
    assert (tmp_path / "old").exists()


def test_folders_that_are_too_deep_or_too_many_go_as_a_whole(tmp_path: Path) -> None:
    since = time.time_ns()
    deep = tmp_path / "deep"
    deep.mkdir()
    folder = os.open(deep, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    assert "deep" in over([tmp_path], LIMITS)
    assert trim(tmp_path, LIMITS, since) == ("deep",)
    for number in range(60):
        (tmp_path / f"many{number}").mkdir()
    assert "more than 50 files" in over([tmp_path], LIMITS)
    assert len(trim(tmp_path, LIMITS, since)) == 10
    assert over([tmp_path], LIMITS) == ""


def test_a_full_disk_is_a_reason(tmp_path: Path) -> None:
    since = time.time_ns()
    (tmp_path / "new").write_bytes(b"x")
    floor = replace(LIMITS, disk_floor=1 << 60)
    assert "free space" in over([tmp_path], floor)
    assert trim(tmp_path, floor, since) == ("new",)


def test_a_kernels_own_files_do_not_fill_a_work_folder_that_is_just_full(tmp_path: Path) -> None:
    work, own = tmp_path / "work", tmp_path / "own"
    for folder in (work, own):
        folder.mkdir()
    (work / "full").write_bytes(bytes(LIMITS.work_bytes))
    for number in range(LIMITS.work_files - 1):
        (work / f"{number}").touch()
    (own / "fonts").write_bytes(b"x" * 100_000)
    assert over([work, own], LIMITS) == ""
    (own / "hoard").write_bytes(bytes(OWN_BYTES))
    assert "more than 1 MB" in over([work, own], LIMITS)
    (own / "hoard").unlink()
    for number in range(OWN_FILES):
        (own / f"{number}").touch()
    assert "more than 50 files" in over([work, own], LIMITS)


async def test_a_watch_says_what_is_broken(tmp_path: Path) -> None:
    async def look(memory: int = 0, until: float | None = None) -> str:
        async with asyncio.timeout(10):
            verdict = await watch(lambda: (memory, 1), [tmp_path], LIMITS, tick=0.01, until=until)
        assert verdict is not None
        return f"{verdict.reason} {verdict.kill}"

    assert await look(101 * MB) == "it used more than 100 MB of memory True"
    assert (await look(until=time.monotonic() + 0.2)).endswith("seconds False")
    (tmp_path / "large").write_bytes(bytes(2 * MB))
    assert await look() == "it filled the work folder with more than 1 MB True"
    alarm = asyncio.Event()
    alarm.set()
    assert await watch(lambda: (0, 1), [tmp_path], LIMITS, alarm=alarm) is None
