"""Many at once, full quotas and full disks."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from files_samples import OTHER, OWNER, body_of, chunks, drafts, on_disk, opened, zeros
from test_store_disk import CHILD

from mounts import own_mounts
from ouzel.core.errors import TooLarge
from ouzel.core.files import FileInfo
from ouzel.store import FileLimits

MB = 2**20


async def test_eight_uploads_at_once_come_through_while_the_loop_goes_on(tmp_path: Path) -> None:
    bodies = [random.Random(n).randbytes(5 * MB + n) for n in range(8)]
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    async with opened(tmp_path) as (files, _):
        ticking = asyncio.create_task(tick())
        made = await asyncio.gather(
            *(
                files.create(OWNER, f"{n}", "user_data", pieces(body))
                for n, body in enumerate(bodies)
            )
        )
        ticking.cancel()
        for file, body in zip(made, bodies, strict=True):
            assert await body_of(files, file) == body
        # Each megabyte was waited for, not written in the loop.
        assert turns > 8 * 5
        assert drafts(tmp_path) == []


@pytest.mark.parametrize("size", [1, 1000, 700_000, 2 * MB])
async def test_uploads_at_once_never_slip_under_a_quota_together(tmp_path: Path, size: int) -> None:
    quota = size * 5 + size // 2
    async with opened(tmp_path, FileLimits(quota=quota)) as (files, _):
        for _ in range(3):
            done = await asyncio.gather(
                *(files.create(OWNER, "f", "user_data", zeros(size, 300_000)) for _ in range(9)),
                files.create(OTHER, "f", "user_data", zeros(size)),
                return_exceptions=True,
            )
            mine = [each for each in done[:9] if isinstance(each, FileInfo)]
            refused = [each for each in done[:9] if isinstance(each, TooLarge)]
            assert len(mine) + len(refused) == 9
            assert {each.code for each in refused} == {"quota_exceeded"}
            # Those that are refused may have kept others from coming; never let more in.
            assert len(mine) <= 5
            assert isinstance(done[9], FileInfo), "another's quota is another's"
            for _ in range(5 - len(mine)):
                mine.append(await files.create(OWNER, "f", "user_data", zeros(size)))
            with pytest.raises(TooLarge):
                await files.create(OWNER, "f", "user_data", zeros(size))
            assert sum(on_disk(tmp_path).values()) == 6 * size
            for each in (*mine, done[9]):
                await files.delete(each.id, each.owner)


async def test_a_quota_is_known_after_a_restart(tmp_path: Path) -> None:
    limits = FileLimits(quota=100)
    async with opened(tmp_path, limits) as (files, _):
        file = await files.create(OWNER, "f", "user_data", zeros(60))
        upload = await files.begin_upload(OWNER, "f", "user_data", 30, "a/b")
        await files.add_part(upload.id, OWNER, zeros(30))
    async with opened(tmp_path, limits) as (files, _):
        done = await asyncio.gather(
            *(files.create(OWNER, "f", "user_data", zeros(10)) for _ in range(4)),
            files.delete(file.id, OWNER),
            return_exceptions=True,
        )
        assert any(isinstance(each, FileInfo) for each in done)
        used = sum(on_disk(tmp_path).values())
        await files.create(OWNER, "f", "user_data", zeros(100 - used))
        with pytest.raises(TooLarge, match="more than the 100 bytes"):
            await files.create(OWNER, "f", "user_data", chunks(b"1"))


FILLING = """
import asyncio, json, sys
from pathlib import Path
from files_samples import OWNER, body_of, drafts, on_disk, opened, zeros
from ouzel.core.errors import StoreError
from ouzel.core.files import FileInfo
from ouzel.store import FileLimits

folder, reserve = Path(sys.argv[1]), int(sys.argv[2])
SIZE = 300_000

async def fill(files):
    made = [files.create(OWNER, "f", "user_data", zeros(SIZE)) for _ in range(4)]
    done = await asyncio.gather(*made, return_exceptions=True)
    failed = [each for each in done if isinstance(each, Exception)]
    return [each for each in done if isinstance(each, FileInfo)], failed

async def main():
    async with opened(folder, FileLimits(reserve=reserve)) as (files, _):
        kept, refused = [], []
        while not refused:
            more, refused = await fill(files)
            kept += more
        assert all(isinstance(each, StoreError) for each in refused), refused
        words = sorted({each.message for each in refused})
        assert on_disk(folder) == {each.id: SIZE for each in kept}
        if not reserve:
            print(json.dumps([len(kept), words]))
            return
        upload = await files.begin_upload(OWNER, "f", "user_data", SIZE, "a/b")
        try:
            while True:
                await files.add_part(upload.id, OWNER, zeros(SIZE))
        except StoreError as error:
            words.append(error.message)
        # With a reserve the database can go on, and space can be made.
        for each in kept[:2]:
            await files.delete(each.id, OWNER)
        await files.cancel_upload(upload.id, OWNER)
        again = await files.create(OWNER, "f", "user_data", zeros(SIZE))
        assert len(await body_of(files, again)) == SIZE
        assert on_disk(folder) == {each.id: SIZE for each in [*kept[2:], again]}
        print(json.dumps([len(kept), words]))

asyncio.run(main())
"""


@pytest.mark.parametrize("reserve", [0, 2 * MB])
def test_a_full_disk_is_an_error_in_words_and_leaves_nothing_half(
    tmp_path: Path, reserve: int
) -> None:
    command = own_mounts()
    if not command:
        pytest.skip("no file system can be mounted here; the next test limits a file instead")
    script = f"mount -t tmpfs -o size=8m tmpfs {tmp_path}"
    script += f" && exec {sys.executable} - {tmp_path} {reserve}"
    done = subprocess.run(
        [*command, "sh", "-c", script],
        input=FILLING,
        capture_output=True,
        text=True,
        env=CHILD,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    kept, words = json.loads(done.stdout)
    assert kept > 4
    assert words
    for each in words:
        assert "the disk is full; free some space and try again" in each


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from files_samples import OWNER, on_disk, opened, zeros
from ouzel.core.errors import StoreError

folder = Path(sys.argv[1])

async def main():
    async with opened(folder) as (files, _):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
        try:
            await files.create(OWNER, "f", "user_data", zeros(2_000_001))
        except StoreError as error:
            print(error.message)
        assert on_disk(folder) == {}
        await files.create(OWNER, "f", "user_data", zeros(2_000_000))

asyncio.run(main())
"""


def test_a_file_that_the_system_refuses_to_grow_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path],
        capture_output=True,
        text=True,
        env=CHILD,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The store could not keep the file: the disk is full")


async def test_a_folder_that_became_read_only_is_an_error_in_words(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        # Root writes everywhere; a folder that is not there stops it, too.
        async with opened(tmp_path) as (files, _):
            (tmp_path / "files" / "drafts").rmdir()
            with pytest.raises(Exception, match="could not keep the file: No such file"):
                await files.create(OWNER, "f", "user_data", chunks(b"1"))
            (tmp_path / "files" / "drafts").mkdir()
        return
    async with opened(tmp_path) as (files, _):
        (tmp_path / "files" / "drafts").chmod(0o500)
        with pytest.raises(Exception, match="could not keep the file: Permission denied"):
            await files.create(OWNER, "f", "user_data", chunks(b"1"))
        (tmp_path / "files" / "drafts").chmod(0o700)
