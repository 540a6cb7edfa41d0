"""`doctor`: every problem is found where it really is, and comes with something to do."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import filelock
import pytest

from ouzel.build import doctor, engine_checks
from ouzel.build.doctor import examine
from ouzel.build.finding import Finding
from ouzel.build.machine import look
from ouzel.config import Settings, load

SCRIPT = '[[reply]]\nsteps = [{ say = "hi" }]\n'


@pytest.fixture
def fine(tmp_path: Path) -> Settings:
    """Settings with which everything is in place."""
    script = tmp_path / "script.toml"
    script.write_text(SCRIPT)
    return Settings(home=tmp_path / "home", cache=tmp_path / "cache", port=0, script=script)


def found(settings: Settings, area: str, name: str) -> Finding:
    findings = [each for each in examine(settings) if (each.area, each.name) == (area, name)]
    assert len(findings) == 1, findings
    return findings[0]


def test_nothing_is_wrong_and_nothing_is_changed(fine: Settings, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    levels = {(each.area, each.name): each.level for each in examine(fine)}
    # The interpreter's environment is not there yet: this cache is new.
    assert levels.pop(("code", "interpreter")) == "note"
    assert set(levels.values()) == {"ok"}
    areas = {"machine", "engine", "abilities", "code", "store", "address"}
    assert {area for area, _ in levels} == areas
    assert sorted(tmp_path.rglob("*")) == before


def test_every_problem_says_what_to_do(fine: Settings, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    wrong = replace(fine, home=file / "home", script=None, model="nope")
    problems = [each for each in examine(wrong) if each.level == "problem"]
    assert {each.name for each in problems} >= {"folder"}
    assert all(each.advice for each in problems)


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o644, True), (0o640, True)])
def test_a_file_with_a_key_that_others_can_read(tmp_path: Path, mode: int, told: bool) -> None:
    file = tmp_path / "my: odd.toml"
    file.write_text("api_key = 'secret'\nport = 0")
    file.chmod(mode)
    settings = load({"home": str(tmp_path)}, {}, file)
    notes = list(doctor._settings(settings))
    assert bool(notes) is told
    assert all(str(file) in note.text and "secret" not in note.text for note in notes)


def test_a_file_without_a_key_may_be_read(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("port = 0")
    settings = load({}, {"OUZEL_API_KEY": "k"}, file)
    assert list(doctor._settings(settings)) == []


# --- engine -----------------------------------------------------------------------------------


def test_a_script_that_is_not_right(fine: Settings, tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text("[[reply]]\nsteps = [{ sing = 1 }]")
    assert found(fine, "engine", "script").level == "problem"


def test_an_engine_elsewhere_that_does_not_answer(fine: Settings) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        settings = replace(fine, script=None, engine_url=url, engine_retries=0)
        finding = found(settings, "engine", "upstream")
    assert finding.level == "problem"
    assert url.removesuffix("/v1") in finding.text


def test_what_a_script_can_is_what_it_says(fine: Settings, tmp_path: Path) -> None:
    (tmp_path / "script.toml").write_text('capabilities = ["stop"]\nthinks = "tags"\n' + SCRIPT)
    assert found(fine, "abilities", "script").text == "stop, as the script says"
    assert found(fine, "abilities", "thinking").text == "tags"
    assert found(fine, "abilities", "tool style").text == "native"
    led = replace(fine, tool_style="guided")
    assert found(led, "abilities", "tool style").text == "guided"


def test_a_processor_without_avx2() -> None:
    machine = look()
    assert engine_checks.processor(replace(machine, avx2=False)).level == "problem"
    assert engine_checks.processor(replace(machine, avx2=True)).level == "ok"
    assert engine_checks.processor(replace(machine, avx2=None)).level == "ok"


def test_the_library_is_really_loaded() -> None:
    finding, devices = engine_checks.library()
    assert finding.level == "ok"
    assert devices


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("kill -ILL $$", "ended with -4"),
        ("echo 'lib.so: no such file' >&2; exit 1", "no such file"),
        (
            'echo \'{"state": "failed", "reason": "no wheel for this"}\'; exit 1',
            "no wheel for this",
        ),
        ("echo nonsense", "ended with 0"),
        ("exit 3", "ended with 3"),
    ],
)
def test_a_library_that_cannot_be_loaded(tmp_path: Path, body: str, says: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    finding, devices = engine_checks.library(str(python))
    assert finding.level == "problem"
    assert says in finding.text
    assert "pip install" in finding.advice
    assert devices == ()


def test_no_interpreter_at_all(tmp_path: Path) -> None:
    finding, _ = engine_checks.library(str(tmp_path / "none"))
    assert finding.level == "problem"


def weights(settings: Settings) -> dict[str, Finding]:
    return {each.name: each for each in engine_checks.weights(settings, look(), ())}


def test_weights_that_are_not_on_disk_are_worth_a_note(fine: Settings) -> None:
    findings = weights(replace(fine, script=None, model="tiny"))
    assert findings["weights"].level == "note"
    assert "ouzel pull smollm2-135m-instruct" in findings["weights"].advice
    assert findings["memory"].level == "ok"


def test_weights_that_do_not_fit(fine: Settings) -> None:
    settings = replace(fine, script=None, model="gpt-oss-120b")
    small = replace(look(), memory=8_000_000_000)
    levels = {each.name: each.level for each in engine_checks.weights(settings, small, ())}
    assert levels["memory"] == "problem"


def test_weights_that_nobody_knows(fine: Settings) -> None:
    finding = weights(replace(fine, script=None, model="smolm2"))["weights"]
    assert finding.level == "problem"
    assert "smollm2" in finding.text


def test_a_catalogue_that_is_broken(fine: Settings) -> None:
    fine.home.mkdir()
    (fine.home / "catalogue.toml").write_text("[model.x]\nodd = 1")
    assert weights(replace(fine, script=None))["catalogue"].level == "problem"


@pytest.mark.tiny
def test_weights_that_are_there_and_how_they_would_be_served(
    fine: Settings, tiny_weights: Path
) -> None:
    findings = weights(replace(fine, script=None, model=str(tiny_weights), slots=3, threads=1))
    assert findings["weights"].level == "ok"
    assert findings["set-up"].text == "slots: 3, tokens in each: 8,192, threads: 1"
    too_long = weights(replace(fine, script=None, model=str(tiny_weights), context=1_000_000))
    assert too_long["memory"].level == "problem"


@pytest.mark.tiny
def test_weights_that_were_cut_short(fine: Settings, tiny_weights: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    shutil.copyfile(tiny_weights, cut)
    os.truncate(cut, 50_000_000)
    finding = weights(replace(fine, script=None, model=str(cut)))["weights"]
    assert finding.level == "problem"
    assert "cut short" in finding.text


# --- store --------------------------------------------------------------------------------------


def test_a_home_that_cannot_be_written(fine: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = found(replace(fine, home=tmp_path / "file" / "home"), "store", "folder")
    assert finding.level == "problem"
    assert "OUZEL_HOME" in finding.advice


def test_a_store_that_is_no_database(fine: Settings) -> None:
    fine.home.mkdir()
    database = fine.home / "ouzel.db"
    database.write_bytes(b"not a database at all, but long enough to be taken for one" * 20)
    finding = found(fine, "store", "database")
    assert finding.level == "problem"
    assert "not a database" in finding.text
    database.unlink()
    import sqlite3

    with sqlite3.connect(database) as made:
        made.execute("CREATE TABLE x (y)")
    finding = found(fine, "store", "database")
    assert finding.level == "note"
    assert "ouzel gc --vacuum" in finding.advice
    made.execute("PRAGMA auto_vacuum=INCREMENTAL")
    made.execute("VACUUM")
    made.close()
    assert found(fine, "store", "database").level == "ok"


def test_a_home_that_another_server_has(fine: Settings) -> None:
    fine.home.mkdir()
    lock = fine.home / "serving.lock"
    with filelock.FileLock(lock, thread_local=False):
        assert found(replace(fine, port=9), "store", "home").level == "problem"
    assert not [each for each in examine(fine) if each.name == "home"]


# --- address --------------------------------------------------------------------------------------


class _Answers(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *said: object) -> None:
        """Nothing."""


@pytest.fixture
def listener() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("body", "level"),
    [
        (b'{"status": "ok", "engine": "ready", "version": "9.9"}', "note"),
        (b'{"status": "ok"}', "problem"),
        (b"[]", "problem"),
        (b"<html>", "problem"),
        (b"\xff", "problem"),
    ],
)
def test_a_port_that_is_taken(
    fine: Settings, listener: HTTPServer, monkeypatch: pytest.MonkeyPatch, body: bytes, level: str
) -> None:
    monkeypatch.setattr(_Answers, "body", body)
    finding = found(replace(fine, port=listener.server_port), "address", "port")
    assert finding.level == level
    assert ("9.9" in finding.text) is (level == "note")


def test_a_port_that_is_taken_by_who_never_answers(
    fine: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_ASK_WITHIN", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = replace(fine, port=silent.getsockname()[1])
        assert found(settings, "address", "port").level == "problem"


def test_an_address_that_is_not_ours(fine: Settings) -> None:
    settings = replace(fine, host="192.0.2.1", port=80, api_key="k")
    assert found(settings, "address", "port").level == "problem"
    unknown = replace(fine, host="no-such-host.invalid", api_key="k")
    assert found(unknown, "address", "port").level == "problem"


def test_what_is_written_to_see_whether_it_can_be_is_gone(fine: Settings) -> None:
    fine.home.mkdir()
    assert found(fine, "store", "folder").level == "ok"
    assert list(fine.home.iterdir()) == []
    assert stat.S_ISDIR(fine.home.stat().st_mode)
