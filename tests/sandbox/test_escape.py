"""Attackers in real sandboxes: each mode, with the server as root and as a plain user.

What they try is in `escape_script.py` and `escape_bombs.py`, the server's side in
`escape_cases.py`.
Without root, only the plain half is run. Where the machine cannot do a mode, its tests fail: they
are what shows that it can.
"""

from __future__ import annotations

import ast
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jail_kit
import pytest

MIB = 2**20

REFUSALS = {"EPERM", "EACCES", "ENOENT", "ENOSYS", "ENETUNREACH", "ESRCH", "EROFS", "EXDEV"}
ALSO = {
    # Names without a file belong to a network namespace: nobody listens in this one.
    "abstract_socket": {"ECONNREFUSED"},
    # A user namespace has no other users to become; a limit that is raised is Python's ValueError.
    "become_root": {"EINVAL"},
    "become_other": {"EINVAL"},
    "raise_limit": {"ValueError"},
}
SCRIPT = Path(__file__).with_name("escape_script.py")


def _names() -> list[str]:
    """What the script tries, read off it: a test for each, before any of it has run."""
    found = []
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            found.append(node.name)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "plain":
            assert isinstance(node.args[0], ast.Constant)
            found.append(node.args[0].value)
    families = ("netlink", "packet", "vsock", "alg", "bluetooth", "can", "inet6")
    found += [f"socket_{name}" for name in families]
    ways = ("signalled", "asked", "by_thread", "limited", "pinned", "niced", "traced", "fetched")
    ways += ("scheduled",)
    whom = ("server", "victim", "neighbour")
    found += [f"{way}_{who}" for way in (*ways, "owned") for who in whom]
    found += [f"unshare_{name}" for name in ("user", "mount", "net", "pid")]
    return [*found, "a_call_of_the_future"]


NAMES = sorted(_names())


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody can reach, with our sources in it."""
    folder = Path(tempfile.mkdtemp(prefix="ouzel-escape-"))
    folder.chmod(0o755)
    try:
        jail_kit.lay_out(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def python() -> str:
    found = jail_kit.python_for_all()
    if found is None:
        pytest.skip("there is no Python >= 3.11 here that other users can run")
    return found


@pytest.fixture(scope="module", params=jail_kit.VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> jail_kit.Variant:
    return request.param


@pytest.fixture
def server(python: str, place: Path, variant: jail_kit.Variant) -> Iterator[jail_kit.Server]:
    with jail_kit.server(python, place, variant) as one:
        yield one
        assert one.left() == []


@pytest.fixture(scope="module")
def attack(python: str, place: Path, variant: jail_kit.Variant) -> Any:
    """One attacker who tried everything, and what was different afterwards."""
    with jail_kit.server(python, place, variant) as one:
        return one.run("attempts")


@pytest.mark.parametrize("name", NAMES)
def test_refused(attack: Any, name: str) -> None:
    assert attack["said"]["attempts"][name] in REFUSALS | ALSO.get(name, set())


def test_nothing_was_tried_that_has_no_test(attack: Any) -> None:
    assert sorted(attack["said"]["attempts"]) == NAMES


def test_nothing_was_reached_and_nothing_changed(attack: Any) -> None:
    assert attack["reached"] == []
    assert attack["home"]
    assert attack["victim"]
    assert attack["neighbour"]
    assert attack["limits"]


def test_calls_of_another_interface_end_the_process(attack: Any) -> None:
    assert attack["said"]["foreign"] == -31  # SIGSYS


def test_what_is_harmless_works(attack: Any, variant: jail_kit.Variant) -> None:
    assert attack["said"]["harmless"] == ["kept", "42", "hello"]
    assert attack["works"]
    assert (attack["uid"] == attack["own_uid"]) is not variant.root


def test_without_a_sandbox_the_same_attempts_succeed(python: str, place: Path) -> None:
    """Or the tests above would show nothing."""
    plain = next(each for each in jail_kit.VARIANTS if not each.root)
    with jail_kit.server(python, place, plain) as one:
        found = one.run("control")
    assert set(found["said"]["attempts"].values()) == {"done"}
    assert len(found["said"]["attempts"]) == 18
    assert found["reached"] == ["tcp", "udp", "abstract", "named", "datagrams"]


def test_fork_bombs_stop_at_the_limit_and_end_at_once(
    server: jail_kit.Server, variant: jail_kit.Variant
) -> None:
    found = server.run("fork_bomb")
    # Without a user or a namespace of its own, what else the user ran at the start leaves room.
    room = 16 if str(variant) == "landlock-plain" else 0
    for bomb in found.values():
        assert bomb["most"] <= 24 + room
        assert bomb["works"]
    assert found["bomb"]["most"] >= 20


def test_daemons_go_with_the_sandbox(server: jail_kit.Server) -> None:
    found = server.run("leftovers")
    assert found["killed"]["daemons"] == found["ended"]["daemons"] == 3
    assert found["works"]
    assert server.left() == []


def test_a_killed_server_takes_its_sandboxes_along(server: jail_kit.Server) -> None:
    process = server.begin("orphaned")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == -9, said.decode()
    assert server.wait_until_none_left() == []


def test_memory_is_refused_to_one_and_seen_of_all(server: jail_kit.Server) -> None:
    found = server.run("memory_bomb")
    assert found["alone"] == "MemoryError"
    assert found["together"] >= 400
    assert found["processes"] >= 5
    assert found["shared"] >= 300
    assert found["after"] == 0
    assert found["works"]


def test_disks_have_an_end(server: jail_kit.Server, variant: jail_kit.Variant) -> None:
    found = server.run("disk_filler")
    assert found["said"]["one"] == "EFBIG"
    if variant.mode == "bubblewrap":
        assert found["said"]["tmp"] == [16 * MIB, "ENOSPC"]
        assert found["said"]["shm"] == [64 * MIB, "ENOSPC"]
    else:
        assert found["said"]["shm"] == [0, "EACCES"]
        assert "over the limit" in found["tail"]
    assert found["left"] == []
    assert found["works"]


def test_empty_files_and_endless_folders_are_seen(
    server: jail_kit.Server, variant: jail_kit.Variant
) -> None:
    found = server.run("empty_names")
    assert found["seen"] >= (8 if variant.mode == "bubblewrap" else 1)
    assert found["left"] == []


def test_processor_time_has_an_end(server: jail_kit.Server) -> None:
    assert server.run("endless_loop") == {"status": 137, "works": True}


def test_endless_output_costs_the_server_nothing(server: jail_kit.Server) -> None:
    found = server.run("endless_output")
    assert found["grown"] < 8 * MIB
    assert found["spent"] < 0.5
    assert found["tail"] <= 2048
    assert found["works"]


def test_without_namespaces_there_is_landlock_and_without_both_nothing(
    server: jail_kit.Server,
) -> None:
    found = server.run("without_namespaces")
    assert found["mode"] == "landlock"
    assert found["works"]
    assert "bubblewrap: " in found["neither"]
    assert "landlock: " in found["neither"]
    assert "did not come up" in found["start"]
    assert found["ran"] == []
