"""Pulling weights from the Hub, against a Hub on loopback: the real client, real HTTP.

Goes on after a kill, notices another version, sends the token to the Hub and to nobody else.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from weights_kit import ENTRY, Asked, Pull, Server, eventually, make_gguf, serve, sha256

COMMIT = "c0ffee" + "0" * 34
REPO = "someone/some-weights"


class Hub:
    """A Hub with one repository, which hands large files to another address to send.

    Its knobs: `gate` is called when half of a file was sent, and may block or raise
    ConnectionResetError; `named_hash` is a lie about the hash; `refuse` is how often to be busy.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.gate: Callable[[], None] | None = None
        self.named_hash: str | None = None
        self.ranges = True
        self.refuse = 0
        self.tokens: list[tuple[str, str | None]] = []

    def answer(self, asked: Asked) -> None:
        self.tokens.append((asked.path, asked.headers.get("Authorization")))
        if asked.path.startswith("/sent/") and self.refuse:
            self.refuse -= 1
            asked.reply(503)
            return
        if asked.path.startswith("/sent/"):
            self._send(asked, self.files[asked.path.removeprefix("/sent/")])
            return
        repo, _, rest = asked.path.lstrip("/").partition("/resolve/")
        name = rest.partition("/")[2]
        if repo != REPO:
            asked.reply(404, headers={"X-Error-Code": "RepoNotFound"})
        elif name not in self.files:
            asked.reply(404, headers={"X-Error-Code": "EntryNotFound"})
        else:
            self._redirect(asked, name)

    def _redirect(self, asked: Asked, name: str) -> None:
        data = self.files[name]
        host = asked.headers["Host"].replace("127.0.0.1", "localhost")
        asked.reply(
            302,
            headers={
                "Location": f"http://{host}/sent/{name}",
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{self.named_hash or sha256(data)}"',
                "X-Linked-Size": str(len(data)),
            },
        )

    def _send(self, asked: Asked, data: bytes) -> None:
        begin = 0
        if self.ranges and (wanted := asked.headers.get("Range")):
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            asked.begin(
                206,
                len(data) - begin,
                {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"},
            )
        else:
            asked.begin(200, len(data))
        middle = max(begin, len(data) // 2)
        asked.wfile.write(data[begin:middle])
        asked.wfile.flush()
        if self.gate is not None:
            self.gate()
        asked.wfile.write(data[middle:])


def weights(size: int = 400_000) -> bytes:
    return make_gguf(tensors=[("t", [size], 24, size)], data=0) + os.urandom(size)


@pytest.fixture
def hub() -> Hub:
    return Hub({"sub/model.gguf": weights()})


@pytest.fixture
def server(hub: Hub) -> Iterator[Server]:
    with serve(hub.answer) as server:
        yield server


def environment(server: Server, **extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {
        **kept,
        "HF_ENDPOINT": server.url,
        "HF_HOME": "/nonexistent",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        **extra,
    }


def entry(*, files: str | None = None, more: str = "", repo: str = REPO, size: int = 0) -> str:
    files = files or f'{{ name = "hub.gguf", path = "sub/model.gguf", about_bytes = {size or 9} }}'
    return f"""
[model.hub]
{ENTRY}
modalities = ["text"]
files = [{files}]
source = {{ kind = "hub", repo = "{repo}", revision = "v1" }}
{more}
"""


@pytest.fixture
def start(tmp_path: Path, server: Server) -> Callable[..., Pull]:
    def start(toml: str = entry(), **extra: str) -> Pull:
        (tmp_path / "catalogue.toml").write_text(toml)
        return Pull(tmp_path, "hub", tmp_path / "cache", environment(server, **extra))

    return start


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights" / "hub.gguf"


def left(tmp_path: Path) -> list[str]:
    found = (tmp_path / "cache").rglob("*")
    return sorted(path.name for path in found if path.is_file() and path.suffix != ".lock")


def stop_in_the_middle(hub: Hub) -> tuple[threading.Event, threading.Event]:
    reached, go = threading.Event(), threading.Event()

    def gate() -> None:
        reached.set()
        go.wait(60)

    hub.gate = gate
    return reached, go


def test_a_file_comes_whole_and_nothing_else_is_left(
    hub: Hub, start: Callable[..., Pull], file: Path, tmp_path: Path
) -> None:
    ran = start()
    assert ran.wait() == 0, ran.lines
    assert file.read_bytes() == hub.files["sub/model.gguf"]
    assert left(tmp_path) == ["hub.gguf", "hub.gguf.verified"]


def test_the_commit_that_was_described_is_the_one_that_is_fetched(
    server: Server, start: Callable[..., Pull]
) -> None:
    assert start().wait() == 0
    assert server.count("HEAD", f"/{REPO}/resolve/v1/sub/model.gguf") == 1
    assert server.count("GET", f"/{REPO}/resolve/{COMMIT}/sub/model.gguf") == 1


def test_killed_in_the_middle_it_goes_on_where_it_was(
    hub: Hub, server: Server, start: Callable[..., Pull], file: Path, tmp_path: Path
) -> None:
    reached, go = stop_in_the_middle(hub)
    half = len(hub.files["sub/model.gguf"]) // 2
    part = tmp_path / "cache" / "weights" / ".partial" / "hub" / "hub.gguf.part"
    first = start()
    eventually(reached.is_set)
    eventually(lambda: part.exists() and part.stat().st_size == half)
    first.end(signal.SIGKILL)
    go.set()
    hub.gate = None
    assert not file.exists()
    second = start()
    assert second.wait() == 0, second.lines
    assert file.read_bytes() == hub.files["sub/model.gguf"]
    ranges = [wanted for how, path, wanted in server.asked if how == "GET" and "/sent/" in path]
    assert ranges == [None, f"bytes={half}-"]
    assert second.said(f"downloading {half} ")


def test_a_connection_that_breaks_is_taken_up_again(
    hub: Hub, server: Server, start: Callable[..., Pull], file: Path
) -> None:
    breaks = iter([True, True])

    def gate() -> None:
        if next(breaks, False):
            raise ConnectionResetError

    hub.gate = gate
    ran = start()
    assert ran.wait() == 0, ran.lines
    assert file.read_bytes() == hub.files["sub/model.gguf"]
    assert server.count("GET", "/sent/") == 3


def test_a_server_that_is_busy_is_asked_again(
    hub: Hub, start: Callable[..., Pull], file: Path
) -> None:
    hub.refuse = 2
    ran = start()
    assert ran.wait() == 0, ran.lines
    assert file.exists()


def test_a_server_that_stays_busy_is_told(hub: Hub, start: Callable[..., Pull]) -> None:
    hub.refuse = 1000
    ran = start()
    assert ran.wait() == 1
    assert "stopped sending" in ran.lines[-1]
    assert "503" in ran.lines[-1]


def test_a_server_without_ranges_starts_over(
    hub: Hub, start: Callable[..., Pull], file: Path
) -> None:
    breaks = iter([True])

    def gate() -> None:
        if next(breaks, False):
            raise ConnectionResetError

    hub.gate, hub.ranges = gate, False
    ran = start()
    assert ran.wait() == 0, ran.lines
    assert file.read_bytes() == hub.files["sub/model.gguf"]


def test_another_version_on_the_hub_starts_over(
    hub: Hub, start: Callable[..., Pull], file: Path
) -> None:
    reached, go = stop_in_the_middle(hub)
    first = start()
    eventually(reached.is_set)
    first.end(signal.SIGKILL)
    hub.gate = None
    go.set()
    hub.files["sub/model.gguf"] = weights(500_000)
    second = start()
    assert second.wait() == 0, second.lines
    assert file.read_bytes() == hub.files["sub/model.gguf"]


def test_two_pulls_at_once_fetch_once(
    hub: Hub, server: Server, start: Callable[..., Pull], file: Path
) -> None:
    reached, go = stop_in_the_middle(hub)
    first = start()
    eventually(reached.is_set)
    second = start()
    eventually(lambda: second.said("waiting"))
    go.set()
    assert (first.wait(), second.wait()) == (0, 0), first.lines + second.lines
    assert server.count("GET", "/sent/") == 1
    assert file.read_bytes() == hub.files["sub/model.gguf"]


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub: Hub, start: Callable[..., Pull]) -> None:
    ran = start(HF_TOKEN="hf_secret")
    assert ran.wait() == 0, ran.lines
    for path, token in hub.tokens:
        assert token == (None if path.startswith("/sent/") else "Bearer hf_secret"), path
    assert "hf_secret" not in "".join(ran.lines)


def test_bytes_that_are_not_what_the_hub_said_leave_nothing(
    hub: Hub, start: Callable[..., Pull], tmp_path: Path
) -> None:
    hub.named_hash = "a" * 64
    ran = start()
    assert ran.wait() == 1
    assert ran.said("ERROR hub.gguf from someone/some-weights is not what it should be")
    assert "a" * 64 in ran.lines[-1]
    assert sha256(hub.files["sub/model.gguf"]) in ran.lines[-1]
    assert left(tmp_path) == []


def test_a_hash_that_is_not_the_catalogues_is_told_before_a_byte_is_sent(
    hub: Hub, server: Server, start: Callable[..., Pull], tmp_path: Path
) -> None:
    files = (
        f'{{ name = "hub.gguf", path = "sub/model.gguf", sha256 = "{"b" * 64}",'
        f" size_bytes = {len(hub.files['sub/model.gguf'])} }}"
    )
    ran = start(entry(files=files))
    assert ran.wait() == 1
    assert "b" * 64 in ran.lines[-1]
    assert sha256(hub.files["sub/model.gguf"]) in ran.lines[-1]
    assert server.count("GET", "/") == 0
    assert left(tmp_path) == []


def test_a_size_that_is_not_the_catalogues_is_told_before_a_byte_is_sent(
    server: Server, start: Callable[..., Pull]
) -> None:
    files = '{ name = "hub.gguf", path = "sub/model.gguf", size_bytes = 12345 }'
    ran = start(entry(files=files))
    assert ran.wait() == 1
    assert "12,345" in ran.lines[-1]
    assert server.count("GET", "/") == 0


def test_a_file_that_is_no_gguf_leaves_nothing(
    hub: Hub, start: Callable[..., Pull], tmp_path: Path
) -> None:
    hub.files["sub/model.gguf"] = b"<html>" * 1000
    ran = start()
    assert ran.wait() == 1
    assert "not a GGUF" in ran.lines[-1]
    assert left(tmp_path) == []


def test_a_file_that_is_not_there_is_told(start: Callable[..., Pull]) -> None:
    ran = start(entry(files='{ name = "hub.gguf", path = "other.gguf", about_bytes = 9 }'))
    assert ran.wait() == 1
    assert ran.said(f"ERROR The Hub has no other.gguf of {REPO} (v1): 404.")
    assert "verified" not in ran.lines[-1]


def test_an_unconfirmed_name_says_so_when_it_is_not_there(start: Callable[..., Pull]) -> None:
    toml = entry(files='{ name = "hub.gguf", path = "guess.gguf", about_bytes = 9 }')
    ran = start(toml.replace("[model.hub]", "[model.hub]\nverified = false"))
    assert ran.wait() == 1
    assert "404" in ran.lines[-1]
    assert "`verified = false`" in ran.lines[-1]


def test_a_repository_that_is_not_there_is_told(start: Callable[..., Pull]) -> None:
    ran = start(entry(repo="nobody/nothing"))
    assert ran.wait() == 1
    assert ran.said("ERROR The Hub has no sub/model.gguf of nobody/nothing")


def test_offline_is_told(start: Callable[..., Pull]) -> None:
    ran = start(HF_HUB_OFFLINE="1")
    assert ran.wait() == 1
    assert "HF_HUB_OFFLINE" in ran.lines[-1]


def test_a_hub_that_cannot_be_reached_is_told(start: Callable[..., Pull]) -> None:
    ran = start(HF_ENDPOINT="http://127.0.0.1:9")
    assert ran.wait() == 1
    assert ran.said("ERROR The Hub could not be asked for sub/model.gguf")


def test_all_files_of_an_entry_come_and_only_the_missing_ones_again(
    hub: Hub, server: Server, start: Callable[..., Pull], tmp_path: Path
) -> None:
    hub.files = {"w-00001-of-00002.gguf": weights(), "w-00002-of-00002.gguf": weights(1000)}
    hub.files["mmproj.gguf"] = weights(2000)
    files = ", ".join(f'{{ name = "w-0000{n}-of-00002.gguf", about_bytes = 9 }}' for n in (1, 2))
    more = '[model.hub.mmproj]\nname = "hub-mmproj.gguf"\npath = "mmproj.gguf"\nabout_bytes = 9'
    ran = start(entry(files=files, more=more))
    assert ran.wait() == 0, ran.lines
    assert ran.lines[-1].endswith("w-00001-of-00002.gguf")
    folder = tmp_path / "cache" / "weights"
    assert (folder / "hub-mmproj.gguf").read_bytes() == hub.files["mmproj.gguf"]
    (folder / "w-00002-of-00002.gguf").unlink()
    again = start(entry(files=files, more=more))
    assert again.wait() == 0, again.lines
    assert server.count("GET", "/sent/") == 4


def test_no_room_is_told_before_a_byte_is_sent(
    hub: Hub, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, because no real disk can be made small everywhere."""
    import shutil

    from ouzel.core.errors import WeightsError
    from ouzel.engines.weights import hub as our_hub
    from ouzel.engines.weights import load_catalogue, pull

    size = 5 * 10**9
    remote = our_hub.Remote(f"{server.url}/x", size, "etag", None)
    monkeypatch.setattr(our_hub, "describe", lambda *args, **kwargs: remote)
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    (tmp_path / "catalogue.toml").write_text(entry())
    with pytest.raises(WeightsError, match=r"1,000,000,000 \(1 GB\) are free"):
        pull(load_catalogue(tmp_path).find("hub"), tmp_path / "cache", lambda progress: None)
    assert server.asked == []
