"""Work folders full of traps: nothing outside is ever read, nothing hangs, nothing breaks."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

from ouzel.sandbox.container_disk import move_all, remove_all
from ouzel.sandbox.folder import MOST_DEPTH, MOST_FILES, Draft, Folder

SECRET = b"secret of the host"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_bytes(SECRET)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "work").mkdir()
    (tmp_path / "incoming").mkdir()
    return Folder(tmp_path / "work")


def paths(folder: Folder) -> list[str]:
    return [found.path for found in folder.files()]


def read(folder: Folder, path: str) -> bytes:
    descriptor, found = folder.open(path)
    try:
        return os.pread(descriptor, found.size, 0)
    finally:
        os.close(descriptor)


def test_plain_files_are_found_at_any_shown_depth(folder: Folder) -> None:
    (folder.work / "a.csv").write_text("1,2\n")
    (folder.work / "out" / "more").mkdir(parents=True)
    (folder.work / "out" / "more" / "b.txt").write_text("b")
    assert paths(folder) == ["a.csv", "out/more/b.txt"]
    assert read(folder, "out/more/b.txt") == b"b"
    assert folder.media_type("a.csv") == "text/csv"


def test_links_are_neither_shown_nor_followed(folder: Folder, outside: Path) -> None:
    (folder.work / "passwd").symlink_to("/etc/passwd")
    (folder.work / "secret.txt").symlink_to(outside / "secret.txt")
    (folder.work / "up").symlink_to("..")
    (folder.work / "out").symlink_to(outside)
    (folder.work / "loop").symlink_to("loop")
    (folder.work / "hard.txt").hardlink_to(outside / "secret.txt")
    assert paths(folder) == []
    tries = ["passwd", "secret.txt", "hard.txt", "loop", "up", "out/secret.txt", "up/outside"]
    for path in [*tries, "up/outside/secret.txt", "../outside/secret.txt", "/etc/passwd", ""]:
        with pytest.raises(FileNotFoundError):
            folder.open(path)
        with pytest.raises(FileNotFoundError):
            folder.remove(path)
    assert (outside / "secret.txt").read_bytes() == SECRET


@pytest.mark.parametrize(
    "path", ["a\0b", "x" * 4096, "a/" * 2000 + "a", ".", "..", "a/../b", "a//b", "/a", "\udcff"]
)
def test_impossible_paths_are_not_there(folder: Folder, path: str) -> None:
    (folder.work / "b").write_text("b")
    with pytest.raises(FileNotFoundError):
        folder.open(path)
    with pytest.raises(FileNotFoundError):
        folder.media_type(path)


@pytest.mark.timeout(20)
def test_pipes_sockets_and_devices_are_no_files(folder: Folder) -> None:
    os.mkfifo(folder.work / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(folder.work)
        try:
            listening.bind("socket.csv")
        finally:
            os.chdir(here)
        names = ["pipe.csv", "socket.csv"]
        if os.geteuid() == 0:
            try:
                os.mknod(folder.work / "zero.csv", 0o666 | 0o020000, os.makedev(1, 5))
                names.append("zero.csv")
            except PermissionError:
                pass
        assert paths(folder) == []
        for name in names:
            with pytest.raises(FileNotFoundError):
                folder.open(name)
            with pytest.raises(FileNotFoundError):
                folder.remove(name)
    remove_all(folder.work)
    assert not folder.work.exists()


def test_many_files_are_cut_and_odd_names_left_out(folder: Folder) -> None:
    for number in range(MOST_FILES + 500):
        (folder.work / f"file-{number:05}").touch()
    assert len(folder.files()) == MOST_FILES
    remove_all(folder.work)
    folder.work.mkdir()
    long = "n" * 255
    (folder.work / long).write_text("long")
    bad = [b"\xff\xfe.csv", b"line\nbreak", b"esc\x1b[31m", "right\u202eto-left".encode()]
    for name in [*bad, b".hidden", b"back\x08"]:
        Path(os.fsdecode(os.fsencode(folder.work) + b"/" + name)).write_text("odd")
    (folder.work / "__pycache__").mkdir()
    (folder.work / "__pycache__" / "x.pyc").touch()
    assert paths(folder) == [long]
    assert read(folder, long) == b"long"


def nest(start: Path, depth: int) -> None:
    """Folders so deep that no path reaches the innermost."""
    here = os.open(start, os.O_RDONLY)
    for number in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        descriptor = os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=here)
        os.write(descriptor, b"x")
        os.close(descriptor)
    os.fchmod(here, 0)
    os.close(here)


def test_deep_nesting_is_cut_and_can_be_removed(folder: Folder) -> None:
    nest(folder.work, 5000)
    assert len(folder.files()) == MOST_DEPTH - 1
    remove_all(folder.work)
    assert not folder.work.exists()
    remove_all(folder.work)


def test_locked_folders_are_removed_and_links_in_them_not_followed(
    folder: Folder, outside: Path
) -> None:
    locked = folder.work / "locked"
    (locked / "inner").mkdir(parents=True)
    (locked / "inner" / "f").touch()
    (locked / "out").symlink_to(outside)
    (locked / "inner").chmod(0)
    locked.chmod(0)
    folder.files()
    remove_all(folder.work)
    assert (outside / "secret.txt").read_bytes() == SECRET


def test_moving_keeps_everything_and_replaces(folder: Folder, tmp_path: Path) -> None:
    (folder.work / "deep" / "er").mkdir(parents=True)
    (folder.work / "deep" / "er" / "a.txt").write_text("a")
    (folder.work / "same.txt").write_text("new")
    (folder.work / "link").symlink_to("/etc/passwd")
    (folder.work / "deep").chmod(0o500)
    target = tmp_path / "target"
    (target / "deep" / "old").mkdir(parents=True)
    (target / "same.txt").write_text("old")
    move_all(folder.work, target)
    move_all(folder.work, target)
    assert paths(folder) == []
    assert paths(Folder(target)) == ["deep/er/a.txt", "same.txt"]
    assert (target / "same.txt").read_text() == "new"
    assert (target / "link").is_symlink()


def test_a_draft_shows_when_it_is_whole(folder: Folder, outside: Path, tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    (folder.work / "data.csv").symlink_to(outside / "secret.txt")
    draft = Draft(incoming)
    draft.write(b"1,2\n")
    assert paths(folder) == []
    found = draft.keep(folder, "data.csv")
    draft.drop()
    assert (found.path, found.size) == ("data.csv", 4)
    assert read(folder, "data.csv") == b"1,2\n"
    assert (outside / "secret.txt").read_bytes() == SECRET
    other = Draft(incoming)
    other.write(b"half")
    other.drop()
    other.drop()
    assert list(incoming.iterdir()) == []
    (folder.work / "folder").mkdir()
    third = Draft(incoming)
    with pytest.raises(IsADirectoryError):
        third.keep(folder, "folder")
    third.drop()
    assert list(incoming.iterdir()) == []


def test_every_change_is_seen_even_with_its_time_hidden(folder: Folder) -> None:
    path = folder.work / "a.txt"
    path.write_text("one")
    (before,) = folder.files()
    path.write_text("two")
    os.utime(path, ns=(before.mark[2], before.mark[2]))
    (after,) = folder.files()
    assert before.size == after.size
    assert before.changed_at == after.changed_at
    assert before.mark != after.mark


@pytest.mark.timeout(60)
def test_a_folder_that_turns_into_a_link_lets_nothing_out(folder: Folder, outside: Path) -> None:
    """While one thread swaps `d` between a folder and a link, others look, open and remove."""
    real, link, d = folder.work / ".real", folder.work / ".link", folder.work / "d"
    real.mkdir()
    (real / "secret.txt").write_bytes(b"harmless")
    link.symlink_to(outside)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            real.rename(d)
            d.rename(real)
            link.rename(d)
            d.rename(link)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = 0
    try:
        for _ in range(20_000):
            for found in folder.files():
                assert found.size == len(b"harmless")
            try:
                content = read(folder, "d/secret.txt")
            except FileNotFoundError:
                continue
            seen += 1
            assert content == b"harmless"
    finally:
        over.set()
        swapping.join()
    assert seen > 0
    assert (outside / "secret.txt").read_bytes() == SECRET


def test_a_file_that_turns_into_a_link_is_not_removed_outside(
    folder: Folder, outside: Path
) -> None:
    for _ in range(200):
        (folder.work / "a").write_text("a")
        swapping = threading.Thread(target=_swap_file, args=(folder.work / "a", outside))
        swapping.start()
        with contextlib.suppress(FileNotFoundError):
            folder.remove("a")
        swapping.join()
        (folder.work / "a").unlink(missing_ok=True)
    assert (outside / "secret.txt").read_bytes() == SECRET


def _swap_file(path: Path, outside: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "secret.txt")


def test_a_folder_that_is_gone_is_an_error(folder: Folder) -> None:
    shutil.rmtree(folder.work)
    with pytest.raises(FileNotFoundError):
        folder.files()
    with pytest.raises(FileNotFoundError):
        folder.open("a")
