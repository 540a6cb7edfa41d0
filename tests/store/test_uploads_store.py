"""Uploads in parts: put together, refused, cancelled, expired, forgotten; at once and again."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from files_samples import OTHER, OWNER, Clock, body_of, chunks, drafts, on_disk, opened, zeros

from ouzel.core.errors import Conflict, NotFound, RequestError, StoreError, TooLarge
from ouzel.core.files import UploadInfo
from ouzel.store import FileLimits, SqlFiles
from ouzel.store.uploads import REMEMBERED_SECONDS

LIMITS = FileLimits(file=1000, quota=2000, upload=900, part=400, parts=5, upload_seconds=3600)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def files(tmp_path: Path, clock: Clock) -> AsyncIterator[SqlFiles]:
    async with opened(tmp_path, LIMITS, clock) as (made, _):
        yield made


async def begin(files: SqlFiles, size: int = 10, name: str = "a.txt") -> UploadInfo:
    return await files.begin_upload(OWNER, name, "assistants", size, "text/plain", 60)


async def add(files: SqlFiles, upload: UploadInfo, *bodies: bytes) -> tuple[str, ...]:
    parts = [await files.add_part(upload.id, OWNER, chunks(body)) for body in bodies]
    return tuple(part.id for part in parts)


async def room(files: SqlFiles) -> int:
    """Bytes that the owner may still keep, by trying."""
    low, high = 0, LIMITS.quota
    while low < high:
        middle = (low + high + 1) // 2
        try:
            made = []
            for at in range(0, middle, LIMITS.file):
                size = min(LIMITS.file, middle - at)
                made.append(await files.create(OWNER, "try", "user_data", zeros(size)))
            low = middle
        except TooLarge:
            high = middle - 1
        finally:
            for each in made:
                await files.delete(each.id, OWNER)
    return low


async def test_parts_become_a_file_in_the_order_that_completing_says(
    files: SqlFiles, tmp_path: Path, clock: Clock
) -> None:
    upload = await begin(files, name="birds/legs.csv")
    assert (upload.status, upload.expires_at) == ("pending", clock.at + 3600)
    second, extra, first = await add(files, upload, b"1,2\n", b"not used", b"a,b,c\n")
    clock.at += 5
    done = await files.complete_upload(upload.id, OWNER, (first, second))
    assert done.status == "completed"
    assert done.file is not None
    assert (done.file.name, done.file.size, done.file.purpose) == ("legs.csv", 10, "assistants")
    assert (done.file.media_type, done.file.expires_at) == ("text/csv", clock.at + 60)
    assert await body_of(files, done.file) == b"a,b,c\n1,2\n"
    assert await files.load(done.file.id, OWNER) == done.file
    assert extra not in on_disk(tmp_path)
    assert on_disk(tmp_path) == {done.file.id: 10}
    assert await room(files) == 1990


async def test_parts_of_many_chunks_and_a_checksum(files: SqlFiles) -> None:
    body = os.urandom(800)
    upload = await begin(files, 800)
    made = []
    for at in range(0, 800, 400):
        pieces = [body[at + n : at + n + 50] for n in range(0, 400, 50)]
        made.append((await files.add_part(upload.id, OWNER, chunks(*pieces))).id)
    wrong = hashlib.md5(body[::-1]).hexdigest()
    with pytest.raises(RequestError, match="checksum") as caught:
        await files.complete_upload(upload.id, OWNER, tuple(made), wrong)
    assert (caught.value.param, caught.value.status) == ("md5", 400)
    right = hashlib.md5(body).hexdigest().upper()
    done = await files.complete_upload(upload.id, OWNER, tuple(made), right)
    assert done.file is not None
    assert await body_of(files, done.file) == body


async def test_parts_may_come_at_once(files: SqlFiles, tmp_path: Path) -> None:
    upload = await begin(files, 500)
    bodies = [bytes([65 + n]) * 100 for n in range(5)]
    parts = await asyncio.gather(
        *(files.add_part(upload.id, OWNER, chunks(body)) for body in bodies)
    )
    assert {part.upload_id for part in parts} == {upload.id}
    done = await files.complete_upload(upload.id, OWNER, tuple(part.id for part in parts))
    assert done.file is not None
    assert await body_of(files, done.file) == b"".join(bodies)
    assert drafts(tmp_path) == []


async def test_an_empty_upload_needs_no_part(files: SqlFiles) -> None:
    upload = await begin(files, 0)
    done = await files.complete_upload(upload.id, OWNER, ())
    assert done.file is not None
    assert await body_of(files, done.file) == b""


async def test_what_does_not_fit_together_is_refused_and_can_be_put_right(
    files: SqlFiles, tmp_path: Path
) -> None:
    upload, another = await begin(files), await begin(files)
    first, second = await add(files, upload, b"01234", b"56789")
    (foreign,) = await add(files, another, b"56789")
    for parts, param in (
        ((first,), "part_ids"),
        ((first, second, first), "part_ids[2]"),
        ((first, "part_0"), "part_ids[1]"),
        ((foreign, second), "part_ids[0]"),
        (("\ud800",), "part_ids[0]"),
    ):
        with pytest.raises(RequestError) as caught:
            await files.complete_upload(upload.id, OWNER, parts)
        assert (caught.value.param, caught.value.status) == (param, 400)
    assert set(on_disk(tmp_path)) == {first, second, foreign}
    done = await files.complete_upload(upload.id, OWNER, (first, second))
    assert done.file is not None
    assert await body_of(files, done.file) == b"0123456789"


async def test_what_is_too_large_is_refused_before_it_comes(files: SqlFiles) -> None:
    with pytest.raises(TooLarge) as caught:
        await begin(files, 901)
    assert (caught.value.param, caught.value.code) == ("bytes", "file_too_large")
    for size, kind, param in ((-1, "text/plain", "bytes"), (1, "text\0", "mime_type")):
        with pytest.raises(RequestError) as refused:
            await files.begin_upload(OWNER, "n", "assistants", size, kind)
        assert refused.value.param == param
    with pytest.raises(RequestError) as refused:
        await begin(files, name="..")
    assert refused.value.param == "filename"
    await files.create(OWNER, "f", "user_data", zeros(1000))
    await files.create(OWNER, "f", "user_data", zeros(500))
    with pytest.raises(TooLarge) as caught:
        await begin(files, 501)
    assert (caught.value.param, caught.value.code) == ("bytes", "quota_exceeded")
    await begin(files, 500)


async def test_parts_have_a_size_and_a_number(files: SqlFiles, tmp_path: Path) -> None:
    upload = await begin(files)
    with pytest.raises(TooLarge) as caught:
        await files.add_part(upload.id, OWNER, zeros(401))
    assert (caught.value.param, caught.value.code) == ("data", "file_too_large")
    done = await asyncio.gather(
        *(files.add_part(upload.id, OWNER, chunks(b"01")) for _ in range(8)),
        return_exceptions=True,
    )
    refused = [each for each in done if isinstance(each, Conflict)]
    assert [each.code for each in refused] == ["too_many_parts"] * 3
    assert len(on_disk(tmp_path)) == 5
    await files.cancel_upload(upload.id, OWNER)
    assert await room(files) == 2000


async def test_pending_parts_count_for_the_quota(files: SqlFiles, tmp_path: Path) -> None:
    upload = await begin(files)
    await files.create(OWNER, "f", "user_data", zeros(1000))
    for size in (400, 400, 200):
        await files.add_part(upload.id, OWNER, zeros(size))
    with pytest.raises(TooLarge) as caught:
        await files.add_part(upload.id, OWNER, chunks(b"1"))
    assert (caught.value.param, caught.value.code) == ("data", "quota_exceeded")
    with pytest.raises(TooLarge):
        await files.create(OWNER, "f", "user_data", chunks(b"1"))
    cancelled = await files.cancel_upload(upload.id, OWNER)
    assert cancelled.status == "cancelled"
    assert await room(files) == 1000
    assert len(on_disk(tmp_path)) == 1


async def test_a_full_quota_does_not_hinder_completing(files: SqlFiles) -> None:
    upload = await begin(files, 800)
    await files.create(OWNER, "f", "user_data", zeros(1000))
    parts = [(await files.add_part(upload.id, OWNER, zeros(size))).id for size in (400, 400, 200)]
    done = await files.complete_upload(upload.id, OWNER, tuple(parts[:2]))
    assert done.file is not None
    assert await room(files) == 200


ASK: list[Callable[[SqlFiles, str, str], object]] = [
    lambda files, upload, owner: files.add_part(upload, owner, chunks(b"1")),
    lambda files, upload, owner: files.complete_upload(upload, owner, ()),
    lambda files, upload, owner: files.cancel_upload(upload, owner),
]


@pytest.mark.parametrize("ask", ASK)
async def test_anothers_upload_is_as_one_that_is_not_there(files: SqlFiles, ask: object) -> None:
    upload = await begin(files)
    said = []
    for upload_id, owner in ((upload.id, OTHER), ("upload_0", OWNER), ("\ud800", OWNER)):
        with pytest.raises(NotFound) as caught:
            await ask(files, upload_id, owner)  # type: ignore[operator]
        said.append((caught.value.message.replace(upload_id, "ID"), caught.value.code))
    assert set(said) == {("Upload with id 'ID' not found.", "not_found")}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("end", ["completed", "cancelled", "expired"])
async def test_an_upload_that_is_over_takes_nothing_more(
    files: SqlFiles, clock: Clock, ask: object, end: str
) -> None:
    upload = await begin(files, 0)
    if end == "completed":
        await files.complete_upload(upload.id, OWNER, ())
    elif end == "cancelled":
        await files.cancel_upload(upload.id, OWNER)
    else:
        clock.at += 3600
    for _ in range(2):
        with pytest.raises(Conflict, match=f"is {end}") as caught:
            await ask(files, upload.id, OWNER)  # type: ignore[operator]
        assert caught.value.code == f"upload_{end}"
        await files.expire()


async def test_of_many_who_complete_one_succeeds(files: SqlFiles, tmp_path: Path) -> None:
    upload = await begin(files)
    parts = await add(files, upload, b"0123456789")
    done = await asyncio.gather(
        *(files.complete_upload(upload.id, OWNER, parts) for _ in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, UploadInfo) for each in done) == 1
    assert sum(isinstance(each, Conflict) for each in done) == 7
    assert list(on_disk(tmp_path).values()) == [10]
    assert await room(files) == 1990


async def test_completing_and_cancelling_at_once_agree(files: SqlFiles, tmp_path: Path) -> None:
    for turn in range(12):
        upload = await begin(files, 800)
        parts = tuple([(await files.add_part(upload.id, OWNER, zeros(400))).id for _ in range(2)])

        async def cancel(upload: UploadInfo = upload, turn: int = turn) -> UploadInfo:
            for _ in range(turn):
                await asyncio.sleep(0.0003)
            return await files.cancel_upload(upload.id, OWNER)

        done, cancelled = await asyncio.gather(
            files.complete_upload(upload.id, OWNER, parts), cancel(), return_exceptions=True
        )
        assert isinstance(done, UploadInfo) != isinstance(cancelled, UploadInfo)
        assert isinstance(done, UploadInfo | Conflict), done
        assert isinstance(cancelled, UploadInfo | Conflict), cancelled
        kept, _ = await files.page(OWNER)
        assert on_disk(tmp_path) == {each.id: 800 for each in kept}
        for each in kept:
            await files.delete(each.id, OWNER)
    assert await room(files) == 2000


async def test_a_part_that_comes_while_it_is_completed_is_not_left_behind(
    files: SqlFiles, tmp_path: Path
) -> None:
    for turn in range(12):
        upload = await begin(files)
        parts = await add(files, upload, b"0123456789")

        async def late(upload: UploadInfo = upload, turn: int = turn) -> AsyncIterator[bytes]:
            for _ in range(turn):
                await asyncio.sleep(0.0003)
            yield b"late"

        coming = asyncio.create_task(files.add_part(upload.id, OWNER, late()))
        await asyncio.sleep(0.001)
        done = await files.complete_upload(upload.id, OWNER, parts)
        await asyncio.wait([coming])
        assert coming.exception() is None or isinstance(coming.exception(), Conflict)
        assert done.file is not None
        assert on_disk(tmp_path) == {done.file.id: 10}
        await files.delete(done.file.id, OWNER)
    assert await room(files) == 2000


async def test_uploads_survive_a_restart(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, LIMITS, clock) as (files, _):
        upload = await begin(files)
        (first,) = await add(files, upload, b"01234")
        over = await begin(files)
        await files.cancel_upload(over.id, OWNER)
    async with opened(tmp_path, LIMITS, clock) as (files, _):
        (second,) = await add(files, upload, b"56789")
        with pytest.raises(Conflict, match="is cancelled"):
            await files.add_part(over.id, OWNER, chunks(b"1"))
        assert await room(files) == 1990
        done = await files.complete_upload(upload.id, OWNER, (first, second))
        assert done.file is not None
        assert await body_of(files, done.file) == b"0123456789"


async def test_an_upload_that_nobody_completes_goes_and_is_forgotten(
    files: SqlFiles, tmp_path: Path, clock: Clock
) -> None:
    old = await begin(files)
    await add(files, old, b"01234", b"x")
    done = await begin(files, 0)
    await files.complete_upload(done.id, OWNER, ())
    clock.at += 3599
    new = await begin(files)
    (part,) = await add(files, new, b"01234")
    assert await files.expire() == 1, "the file that lives for a minute"
    clock.at += 1
    assert await files.expire() == 1
    assert await files.expire() == 0
    assert on_disk(tmp_path) == {part: 5}
    assert await room(files) == 1995
    clock.at += REMEMBERED_SECONDS
    assert await files.expire() == 1
    for upload in (old, done):
        with pytest.raises(NotFound):
            await files.cancel_upload(upload.id, OWNER)
    with pytest.raises(Conflict, match="is expired"):
        await files.cancel_upload(new.id, OWNER)
    assert on_disk(tmp_path) == {}


async def test_parts_whose_bytes_were_taken_away_are_an_error_in_words(
    files: SqlFiles, tmp_path: Path
) -> None:
    upload = await begin(files)
    parts = await add(files, upload, b"01234", b"56789")
    place = next((tmp_path / "files").rglob(parts[1]))
    place.write_bytes(b"5")
    with pytest.raises(StoreError, match="damaged"):
        await files.complete_upload(upload.id, OWNER, parts)
    place.unlink()
    with pytest.raises(StoreError, match="missing"):
        await files.complete_upload(upload.id, OWNER, parts)
    assert list(on_disk(tmp_path)) == [parts[0]]
    (again,) = await add(files, upload, b"56789")
    done = await files.complete_upload(upload.id, OWNER, (parts[0], again))
    assert done.status == "completed"
    assert await room(files) == 1990


@pytest.mark.parametrize("steps", range(0, 60, 4))
async def test_a_cancelled_completion_happened_or_did_not(
    files: SqlFiles, tmp_path: Path, steps: int
) -> None:
    upload = await begin(files)
    parts = await add(files, upload, b"01234", b"56789")
    task = asyncio.create_task(files.complete_upload(upload.id, OWNER, parts))
    for _ in range(steps):
        await asyncio.sleep(0.0002)
    task.cancel()
    await asyncio.wait([task])
    kept, _ = await files.page(OWNER)
    if kept:
        assert on_disk(tmp_path) == {kept[0].id: 10}
        with pytest.raises(Conflict):
            await files.complete_upload(upload.id, OWNER, parts)
    else:
        assert set(on_disk(tmp_path)) == set(parts)
        await files.complete_upload(upload.id, OWNER, parts)
    assert await room(files) == 1990


async def test_an_upload_whose_time_is_up_while_it_is_completed_has_expired(
    files: SqlFiles, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await begin(files)
    parts = await add(files, upload, b"01234", b"56789")
    loop, blobs = asyncio.get_running_loop(), files._keeping.blobs
    open_part = blobs.open

    def late(blob_id: str) -> tuple[int, int]:
        """In the thread that copies: the parts go before the second is copied."""
        if blob_id == parts[1]:
            clock.at += 3600
            assert asyncio.run_coroutine_threadsafe(files.expire(), loop).result(30) == 1
        return open_part(blob_id)

    monkeypatch.setattr(blobs, "open", late)
    with pytest.raises(Conflict, match="is expired"):
        await files.complete_upload(upload.id, OWNER, parts)
    assert on_disk(tmp_path) == {}
    assert await room(files) == 2000
