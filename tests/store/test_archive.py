"""All of one owner's data arrives elsewhere as it was, and nothing hostile does."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import sqlite3
import stat
import tarfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from store_samples import OWNER, deltas, finished, new_run, said

from ouzel.core.contracts_batches import Batch, BatchLine
from ouzel.core.errors import NotFound, OuzelError, StoreError
from ouzel.core.runs import Run
from ouzel.store import SqlFiles, SqlStore, archive, open_files, open_store
from ouzel.store.archive import Counted, export, new_file
from ouzel.store.archive_reading import BadArchive, import_archive
from ouzel.store.archive_tar import TarWriter
from ouzel.store.batches import SqlBatches
from ouzel.store.blobs import Blobs
from ouzel.store.sqlite import SqliteFile

Members = list[tuple[str, bytes]]
BYTES = bytes(range(256)) * 9000
"""More than two of the pieces in which files are copied."""


class Home:
    """A store with its files, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: SqlStore = open_store(folder / "ouzel.db")
        self.files: SqlFiles = open_files(self.store, folder / "files")
        self.file = SqliteFile(folder / "ouzel.db")
        self.file.make()
        self.blobs = Blobs(folder / "files", 0)

    async def close(self) -> None:
        await self.files.close()
        await self.store.close()

    def export(self, owner: str = OWNER) -> tuple[bytes, Counted]:
        stream = io.BytesIO()
        counted = export(self.file, self.blobs, owner, stream, lambda *_: None)
        return stream.getvalue(), counted

    def take(self, data: bytes, owner: str | None = None) -> tuple[str, Counted]:
        stream = io.BytesIO(data)
        return import_archive(self.file, self.blobs, stream, owner, lambda *_: None)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything in the database."""
        tables = (
            *("runs", "events", "conversations", "conversation_items"),
            *("batches", "batch_lines", "files"),
        )
        with closing(sqlite3.connect(self.folder / "ouzel.db")) as connection:
            return {
                each: sorted(connection.execute(f"SELECT * FROM {each}").fetchall(), key=repr)
                for each in tables
            }

    def blob_names(self) -> set[str]:
        return {each.name for each in (self.folder / "files").rglob("*") if each.is_file()}


async def run_of(home: Home, owner: str = OWNER, previous: str | None = None) -> Run:
    run = new_run("Grüße \u0000 \U0001f426", owner=owner, previous_id=previous)
    await home.store.begin(run)
    await home.store.append(run.id, 0, deltas(3))
    await home.store.finish(finished(run), 3, deltas(2, 3))
    return run


async def file_of(home: Home, data: bytes = BYTES, owner: str = OWNER) -> str:
    async def chunks() -> Any:
        yield data

    return (await home.files.create(owner, "birds.csv", "user_data", chunks(), 1e6)).id


async def batch_of(home: Home, owner: str = OWNER, status: Any = "completed") -> Batch:
    batches = SqlBatches(home.store)
    batch = Batch(
        id=f"batch_{os.urandom(12).hex()}",
        owner=owner,
        endpoint="/v1/responses",
        model="scripted",
        input_file_id="file-1",
        created_at=5.0,
        expires_at=6.0,
        status="in_progress",
    )
    await batches.create(batch)
    await batches.add_lines(
        batch.id, [BatchLine(1, "done", b"\xff\x00", b"{}"), BatchLine(2, "failed", b"{}", None)]
    )
    await batches.change(dataclasses.replace(batch, status=status), "in_progress")
    return batch


async def filled(folder: Path) -> Home:
    home = Home(folder)
    first = await run_of(home)
    await run_of(home, previous=first.id)
    await home.store.conversations.create(
        OWNER, {"topic": "birds"}, [said("user", "Hi"), said("assistant", "Ho")]
    )
    await file_of(home)
    await batch_of(home)
    await run_of(home, "mallory")
    await home.store.conversations.create("mallory", {}, [said("user", "secret")])
    await file_of(home, b"secret", "mallory")
    await batch_of(home, "mallory")
    return home


@pytest.fixture
async def source(tmp_path: Path) -> Any:
    home = await filled(tmp_path / "source")
    yield home
    await home.close()


@pytest.fixture
async def target(tmp_path: Path) -> Any:
    home = Home(tmp_path / "target")
    yield home
    await home.close()


def members_of(data: bytes) -> Members:
    """With the standard library's reader: any tar can read it."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(each.name, tar.extractfile(each).read()) for each in tar]  # type: ignore[union-attr]


def packed(members: Members) -> bytes:
    """An archive of any members, with a right end."""
    stream = io.BytesIO()
    writer = TarWriter(stream, 0)
    for name, body in members:
        if name != "end.json":
            writer.add(name, len(body), (body,))
    writer.finish()
    return stream.getvalue()


async def test_all_of_one_owner_arrives_as_it_was(source: Home, target: Home) -> None:
    data, counted = source.export()
    assert counted.done == {"responses": 2, "conversations": 1, "batches": 1, "files": 1}
    assert counted.left_out == {}
    assert b"secret" not in data
    assert b"mallory" not in data
    owner, taken = target.take(data)
    assert (owner, taken.done, taken.left_out) == (OWNER, counted.done, {})
    was, now = source.rows(), target.rows()
    ours = {row[0] for row in was["runs"] if row[1] == OWNER}
    assert now["runs"] == [row for row in was["runs"] if row[1] == OWNER]
    assert now["events"] == [row for row in was["events"] if row[0] in ours]
    assert now["conversations"] == [row for row in was["conversations"] if row[1] == OWNER]
    assert len(now["conversation_items"]) == 2
    assert now["batches"] == [row for row in was["batches"] if row[1] == OWNER]
    assert len(now["batch_lines"]) == 2
    (kept,) = now["files"]
    assert kept in was["files"]
    content = await target.files.open(kept[0], OWNER)
    assert await content.read(0, len(BYTES) + 1) == BYTES
    content.close()
    for blob in (target.folder / "files").rglob("file-*"):
        assert stat.S_IMODE(blob.stat().st_mode) == 0o600
    assert not list((target.folder / "files" / "drafts").iterdir())
    last = next(row[0] for row in now["runs"] if row[6] is not None)
    assert len(await target.store.history(last, OWNER)) == 4
    assert len(await target.store.events(last, OWNER)) == 5


async def test_another_owner_can_get_it(source: Home, target: Home) -> None:
    data, _ = source.export()
    owner, counted = target.take(data, "bob")
    assert owner == "bob"
    assert counted.done["responses"] == 2
    for name, rows in target.rows().items():
        if name not in ("events", "conversation_items", "batch_lines"):
            assert {row[1] for row in rows} == {"bob"}
    for row in target.rows()["runs"]:
        assert (await target.store.load(row[0], "bob")).owner == "bob"
        with pytest.raises(NotFound):
            await target.store.load(row[0], OWNER)
    assert json.loads(target.rows()["batches"][0][4])["owner"] == "bob"


async def test_what_is_there_is_left_as_it_is(source: Home, target: Home) -> None:
    data, _ = source.export()
    target.take(data)
    run_id = target.rows()["runs"][0][0]
    await target.store.delete(run_id, OWNER)
    talk = target.rows()["conversations"][0][0]
    await target.store.conversations.add(talk, OWNER, [said("user", "more")])
    _, counted = target.take(data)
    assert counted.done == {"responses": 1}
    assert counted.left_out == {
        "responses that were there already": 1,
        "conversations that were there already": 1,
        "batches that were there already": 1,
        "files that were there already": 1,
    }
    assert len(await target.store.conversations.history(talk, OWNER)) == 3
    assert len(await target.store.events(run_id, OWNER)) == 5


async def test_another_owners_is_never_touched(source: Home, target: Home) -> None:
    data, _ = source.export()
    before = source.rows()
    with pytest.raises(StoreError, match="another owner's"):
        source.take(data, "bob")
    assert source.rows() == before
    names = source.blob_names()
    only_files = [each for each in members_of(data) if each[0].startswith(("head", "files"))]
    with pytest.raises(StoreError, match="another owner's"):
        source.take(packed(only_files), "bob")
    assert source.blob_names() == names


async def test_what_runs_or_is_damaged_is_left_out(source: Home) -> None:
    await source.store.begin(new_run())
    await batch_of(source, status="cancelling")
    broken, gone = await run_of(source), await file_of(source)
    cut = await run_of(source)
    with closing(sqlite3.connect(source.folder / "ouzel.db")) as connection, connection:
        connection.execute("UPDATE runs SET body = 'no' WHERE id = ?", (broken.id,))
        connection.execute("DELETE FROM events WHERE run_id = ? AND position = 0", (cut.id,))
    next((source.folder / "files").rglob(gone)).unlink()
    data, counted = source.export()
    assert counted.done == {"responses": 3, "conversations": 1, "batches": 1, "files": 1}
    assert counted.left_out == {
        "responses that still run": 1,
        "responses whose record is damaged": 1,
        "responses whose events are damaged, from there on": 1,
        "batches that still run": 1,
        "files whose bytes are gone": 1,
    }
    assert data


async def test_many_lines_become_many_members(
    source: Home, target: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MEMBER_BYTES", 400)
    data, counted = source.export()
    assert len([name for name, _ in members_of(data) if name.startswith("runs/")]) > 3
    assert target.take(data)[1].done == counted.done


async def test_an_export_is_one_moment(source: Home, target: Home) -> None:
    stream, seen = io.BytesIO(), []

    def meanwhile(kind: str, _: int) -> None:
        if not seen:
            with closing(sqlite3.connect(source.folder / "ouzel.db")) as other, other:
                other.execute("PRAGMA foreign_keys=ON")
                other.execute("DELETE FROM conversations")
                other.execute("DELETE FROM runs")
        seen.append(kind)

    export(source.file, source.blobs, OWNER, stream, meanwhile)
    assert source.rows()["runs"] == []
    assert target.take(stream.getvalue())[1].done["conversations"] == 1
    assert len(target.rows()["events"]) == 4


def test_a_file_is_there_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.tar"
    with pytest.raises(ZeroDivisionError), new_file(path) as stream:
        stream.write(bytes(1 // 0))
    assert list(tmp_path.iterdir()) == []
    with new_file(path) as stream:
        stream.write(b"whole")
        assert not path.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(StoreError, match="there already"), new_file(path):
        pass
    assert path.read_bytes() == b"whole"


Change = Callable[[bytes], bytes]


def _header(data: bytes, name: str, /, **changes: Any) -> bytes:
    """The archive with one member's header changed, and its checksum right."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        info = next(each for each in tar if each.name.startswith(name))
    at = info.offset
    for field, value in changes.items():
        setattr(info, field, value)
    new = info.tobuf(tarfile.GNU_FORMAT)
    return data[:at] + new[:512] + data[at + 512 :]


def _swap(data: bytes, name: str, old: bytes, new: bytes, *, count: int = -1) -> bytes:
    """The archive with other words in some members, and a right checksum."""
    changed = [
        (each, body.replace(old, new, count) if each.startswith(name) else body)
        for each, body in members_of(data)
    ]
    assert changed != members_of(data), "nothing was changed"
    return packed(changed)


def _file_id(data: bytes) -> str:
    return next(n for n, _ in members_of(data) if n.endswith(".bin"))[6:-4]


def _renamed(data: bytes, new: str) -> bytes:
    old = _file_id(data)
    return packed(
        [
            (name.replace(old, new), body.replace(old.encode(), new.encode()))
            for name, body in members_of(data)
        ]
    )


def _flipped(data: bytes) -> bytes:
    at = data.index(bytes(range(200)))
    return data[:at] + b"!" + data[at + 1 :]


def _without_member(data: bytes) -> bytes:
    """One member left out, the checksum as it was."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        places = [each.offset for each in tar]
    return data[: places[2]] + data[places[3] :]


def _reordered(data: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        places = [each.offset for each in tar]
    a, b, c = places[1], places[2], places[3]
    return data[:a] + data[b:c] + data[a:b] + data[c:]


HOSTILE: dict[str, Change] = {
    "nothing": lambda data: b"",
    "no tar": lambda data: b"PK\x03\x04" * 400,
    "zeros": lambda data: bytes(10_240),
    "cut in a header": lambda data: data[:700],
    "cut in a file": lambda data: data[: len(data) // 2],
    "cut before its end": lambda data: data[: data.rindex(b"end.json")],
    "a bit turned": _flipped,
    "a member too few": _without_member,
    "two members swapped": _reordered,
    "a link": lambda data: _header(data, "runs", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": lambda data: _header(data, "runs", type=tarfile.LNKTYPE, linkname="x"),
    "a folder": lambda data: _header(data, "runs", type=tarfile.DIRTYPE),
    "a device": lambda data: _header(data, "runs", type=tarfile.CHRTYPE),
    "a sparse file": lambda data: _header(data, "runs", type=tarfile.GNUTYPE_SPARSE),
    "a long name": lambda data: _header(data, "runs", type=tarfile.GNUTYPE_LONGNAME),
    "a path upwards": lambda data: _header(data, "files", name="files/../../x.json"),
    "an absolute path": lambda data: _header(data, "files", name="/etc/cron.d/x.json"),
    "an odd name": lambda data: _header(data, "files", name="files/a\nb.json"),
    "a huge length": lambda data: _header(data, "runs", size=2**60),
    "a negative length": lambda data: _header(data, "runs", size=-1),
    "a header's checksum": lambda data: data[:148] + b"0000000\0" + data[156:],
    "another format": lambda data: _swap(data, "head", b'"format":1', b'"format":2'),
    "a head of another kind": lambda data: _swap(data, "head", b"{", b"[{"),
    "no owner": lambda data: _swap(data, "head", b'"alice"', b'""'),
    "an owner that is not theirs": lambda data: _swap(data, "head", b'"alice"', b'"eve"'),
    "no head": lambda data: packed(members_of(data)[1:]),
    "a deep line": lambda data: packed(
        [members_of(data)[0], ("runs/1.jsonl", b'{"kind":"run","body":' + b"[" * 50_000 + b"\n")]
    ),
    "a line without its end": lambda data: packed(
        [members_of(data)[0], ("runs/1.jsonl", b'{"kind":"run"')]
    ),
    "an unknown line": lambda data: _swap(data, "runs", b'"kind":"events"', b'"kind":"evil"'),
    "a line elsewhere": lambda data: packed(
        [(n.replace("runs/", "batches/1"), b) for n, b in members_of(data)]
    ),
    "events of another run": lambda data: _swap(data, "runs", b'"run":"resp_', b'"run":"resp_0'),
    "events with a gap": lambda data: _swap(data, "runs", b'"position":3', b'"position":4'),
    "events twice": lambda data: _swap(data, "runs", b'"position":3', b'"position":0'),
    "a run that runs": lambda data: _swap(data, "runs", b'"completed"', b'"in_progress"'),
    "a run's id": lambda data: _swap(data, "runs", b"resp_", b"../../"),
    "a run of tomorrow": lambda data: _swap(data, "runs", b"1750000000.25", b"99750000000.25"),
    "a run of another shape": lambda data: _swap(data, "runs", b'"output":', b'"outptu":'),
    "half a character": lambda data: _swap(data, "runs", b'"birds"', b'"\\ud800"'),
    "an item's place": lambda data: _swap(
        data, "conversations", b'"position":1', b'"position":99999999999999999999'
    ),
    "items out of order": lambda data: _swap(
        data, "conversations", b'"position":0', b'"position":7'
    ),
    "a batch that runs": lambda data: _swap(data, "batches", b'"completed"', b'"in_progress"'),
    "a batch's line": lambda data: _swap(data, "batches", b'"status":"failed"', b'"status":"?"'),
    "a file's id": lambda data: _renamed(data, "evil-0123456789"),
    "a short file id": lambda data: _renamed(data, "file-"),
    "a file's length": lambda data: _swap(data, "files", b'"size":2304000', b'"size":2304001'),
    "a file's name": lambda data: _swap(data, "files", b"birds.csv", b".."),
    "a file's expiry": lambda data: _swap(data, "files", b'"expires_at":', b'"expires_at":"x"+'),
    "a file without bytes": lambda data: packed(
        [each for each in members_of(data) if not each[0].endswith(".bin")]
    ),
    "bytes without a file": lambda data: packed(
        [
            each
            for each in members_of(data)
            if not each[0].startswith("files/file-") or each[0].endswith(".bin")
        ]
    ),
    "an unknown member": lambda data: packed([*members_of(data), ("x/y.bin", b"")]),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_what_no_export_writes_leaves_nothing(
    source: Home, target: Home, what: str, tmp_path: Path
) -> None:
    data, _ = source.export()
    changed = HOSTILE[what](data)
    nothing, before = target.rows(), set(tmp_path.rglob("*"))
    with pytest.raises(OuzelError) as caught:
        target.take(changed)
    assert "Gr" not in caught.value.message, "words of a client are in no message"
    assert target.rows() == nothing
    assert target.blob_names() == set()
    assert {each for each in tmp_path.rglob("*") if each.is_file()} <= before
    assert target.take(data)[1].done["responses"] == 2, "and the right one can still be taken"


async def test_a_name_that_could_harm_is_cleaned_and_its_type_is_looked_at(
    source: Home, target: Home
) -> None:
    data = _swap(source.export()[0], "files", b"birds.csv", b"../../etc/pas\\u202eswd")
    target.take(data)
    (row,) = target.rows()["files"]
    assert row[2] == "pas_swd"


async def test_a_full_disk_leaves_nothing(
    source: Home, target: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = source.export()
    target.blobs = Blobs(target.folder / "files", 2**62)
    with pytest.raises(StoreError, match="disk is full"):
        target.take(data)
    assert target.blob_names() == set()
    assert target.rows()["runs"] == []


async def test_cut_after_the_commit_the_next_start_finds_the_files(
    source: Home, target: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = source.export()

    def die(*_: object) -> None:
        raise OSError(5, "as if it had been killed")

    monkeypatch.setattr(target.blobs, "keep", die)
    with pytest.raises(StoreError):
        target.take(data)
    await target.files.sweep()
    (row,) = target.rows()["files"]
    (await target.files.open(row[0], OWNER)).close()


async def test_an_archive_says_what_it_is(source: Home) -> None:
    members = members_of(source.export()[0])
    head, end = json.loads(members[0][1]), json.loads(members[-1][1])
    assert (members[0][0], members[-1][0]) == ("head.json", "end.json")
    assert (head["format"], head["owner"]) == (1, OWNER)
    assert abs(head["created_at"] - time.time()) < 600
    summed = hashlib.sha256()
    for name, body in members[:-1]:
        summed.update(f"{name}\n{len(body)}\n{hashlib.sha256(body).hexdigest()}\n".encode())
    assert end == {"members": len(members) - 1, "sha256": summed.hexdigest()}


def test_bad_archives_are_store_errors() -> None:
    assert issubclass(BadArchive, StoreError)
