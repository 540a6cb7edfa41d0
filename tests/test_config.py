"""Settings: precedence, errors that name everything, bounds, secrets, and the docs."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouzel.config import (
    SETTINGS,
    Settings,
    SettingsError,
    expected,
    flag,
    is_loopback,
    kind_of,
    load,
    variable,
)
from ouzel.core.contracts import Capability

DOCS = Path(__file__).parent.parent / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _no_settings_of_mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("OUZEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


def toml_file(folder: Path, text: str, name: str = "settings.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# --- precedence -------------------------------------------------------------------------------


LAYERS = ("flag", "variable", "file")
PORTS = {"flag": 1001, "variable": 1002, "file": 1003}


@given(present=st.sets(st.sampled_from(LAYERS)))
def test_the_highest_layer_that_speaks_wins(
    tmp_path_factory: pytest.TempPathFactory, present: set[str]
) -> None:
    path = toml_file(
        tmp_path_factory.mktemp("c"), f"port = {PORTS['file']}" if "file" in present else ""
    )
    settings = load(
        {"port": str(PORTS["flag"]) if "flag" in present else None},
        {"OUZEL_PORT": str(PORTS["variable"])} if "variable" in present else {},
        path,
    )
    winner = next((layer for layer in LAYERS if layer in present), None)
    assert settings.port == (PORTS[winner] if winner else 8321)
    sources = {
        "flag": "--port", "variable": "OUZEL_PORT", "file": f"{path}: port", None: "default"
    }  # fmt: skip
    assert settings.source("port") == sources[winner]


def _text_for(name: str) -> st.SearchStrategy[str]:
    meta, kind = SETTINGS[name], kind_of(name)
    assert meta.low is not None or kind not in (int, float)
    if kind is int:
        return st.integers(int(meta.low or 0), int(meta.high or 0)).map(str)
    if kind is float:
        return st.floats(meta.low, meta.high).map(repr)
    if kind is tuple:
        return st.lists(st.sampled_from(meta.choices), unique=True).map(",".join)
    if meta.choices:
        return st.sampled_from(meta.choices)
    return {
        "host": st.sampled_from(["127.0.0.1", "::1", "localhost", "127.1.2.3"]),
        "engine_url": st.sampled_from(["http://localhost:1/v1", "https://example.org"]),
    }.get(name, st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True))


@given(data=st.data(), name=st.sampled_from(sorted(SETTINGS)))
def test_a_flag_a_variable_and_a_file_are_read_alike(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    text = data.draw(_text_for(name))
    by_flag = load({name: text}, {})
    by_variable = load({}, {variable(name): text})
    quoted = text if kind_of(name) in (int, float) else f"'{text}'"
    folder = tmp_path_factory.mktemp("c")
    by_file = load({}, {}, toml_file(folder, f"{name} = {quoted}"))
    assert getattr(by_flag, name) == getattr(by_variable, name)
    if kind_of(name) is Path:
        # A path in a file starts at the file, one that is typed at the folder one is in.
        assert getattr(by_file, name) == folder / text
        assert getattr(by_flag, name) == Path.cwd() / text
    else:
        assert getattr(by_file, name) == getattr(by_flag, name)


def test_the_file_in_the_home_is_read_if_it_is_there(tmp_path: Path) -> None:
    toml_file(tmp_path, "port = 9000", "ouzel.toml")
    assert load({}, {"OUZEL_HOME": str(tmp_path)}).port == 9000
    assert load({"home": str(tmp_path)}, {}).port == 9000
    assert load({"home": str(tmp_path / "other")}, {}).port == 8321


def test_a_named_file_replaces_the_one_in_the_home(tmp_path: Path) -> None:
    toml_file(tmp_path, "port = 9000\nslots = 3", "ouzel.toml")
    other = toml_file(tmp_path, "port = 9001")
    settings = load({}, {"OUZEL_HOME": str(tmp_path), "OUZEL_CONFIG": str(other)})
    assert (settings.port, settings.slots) == (9001, 0)
    third = toml_file(tmp_path, "port = 9002", "third.toml")
    assert load({}, {"OUZEL_CONFIG": str(other)}, third).port == 9002


def test_an_empty_variable_unsets_what_may_be_unset_and_is_an_error_elsewhere(
    tmp_path: Path,
) -> None:
    path = toml_file(tmp_path, "api_key = 'secret'")
    assert load({}, {"OUZEL_API_KEY": ""}, path).api_key is None
    with pytest.raises(SettingsError, match=r"OUZEL_PORT.*whole number"):
        load({}, {"OUZEL_PORT": ""})


def test_a_tilde_is_the_users_home(tmp_path: Path) -> None:
    assert load({"home": "~/state"}, {}).home == tmp_path / "user" / "state"
    assert load({}, {}).home == tmp_path / "user" / ".ouzel"
    assert load({}, {}).cache == tmp_path / "user" / ".cache" / "ouzel"


# --- what is wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "near"),
    [
        ({"OUZEL_PROT": "1"}, "OUZEL_PORT"),
        ({"OUZEL_APIKEY": "1"}, "OUZEL_API_KEY"),
        ({"OUZEL_MODEL_": "x"}, "OUZEL_MODEL"),
    ],
)
def test_an_unknown_variable_is_named_with_its_nearest(environ: dict[str, str], near: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, environ)
    assert next(iter(environ)) in caught.value.message
    assert f"Did you mean {near}?" in caught.value.message


def test_an_unknown_key_is_named_with_its_file_and_its_nearest(tmp_path: Path) -> None:
    path = toml_file(tmp_path, "log-level = 'debug'")
    with pytest.raises(SettingsError) as caught:
        load({}, {}, path)
    assert str(path) in caught.value.message
    assert "log-level" in caught.value.message
    assert "Did you mean log_level?" in caught.value.message


def test_a_name_like_no_other_gets_the_whole_list() -> None:
    with pytest.raises(SettingsError, match=r"OUZEL_QQQQQQQQQQ.*Known: OUZEL_HOST"):
        load({}, {"OUZEL_QQQQQQQQQQ": "1"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "http"), ("port", "65536"), ("port", "-1"), ("port", "8_321"), ("port", "٣"),
        ("port", "80.0"), ("port", "9" * 5000), ("port", " "), ("slots", "1e3"),
        ("idle_timeout", "nan"), ("idle_timeout", "inf"), ("idle_timeout", "0"),
        ("idle_timeout", "1e999"), ("log_level", "loud"), ("log_level", "INFO"),
        ("engine_capabilities", "logprobs,magic"), ("max_requests", "0"), ("gpu_layers", "-2"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_setting_source_and_what_is_right(
    tmp_path: Path, name: str, text: str
) -> None:
    path = toml_file(tmp_path, f"{name} = '{text}'")
    for source, attempt in {
        flag(name): lambda: load({name: text}, {}),
        variable(name): lambda: load({}, {variable(name): text}),
        str(path): lambda: load({}, {}, path),
    }.items():
        with pytest.raises(SettingsError) as caught:
            attempt()
        message = caught.value.message
        assert name in message
        assert source in message
        assert expected(name) in message
        assert len(message) < 400


@pytest.mark.parametrize(
    "line",
    [
        "port = '8321'", "port = true", "port = 1.0", "port = [1]", "idle_timeout = true",
        "idle_timeout = nan", "idle_timeout = inf", "host = 5", "home = 1", "home = ''",
        "log_level = []", "engine_capabilities = [1]", "engine_capabilities = {a=1}",
        "api_key = 1979-05-27", "[port]\nx = 1",
    ],
)  # fmt: skip
def test_the_files_types_are_checked(tmp_path: Path, line: str) -> None:
    name = re.split(r"[ \]]", line.lstrip("["))[0]
    with pytest.raises(SettingsError, match=name):
        load({}, {}, toml_file(tmp_path, line))


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load({}, {}, tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match="No such file"):
        load({}, {"OUZEL_CONFIG": str(tmp_path / "missing.toml")})
    with pytest.raises(SettingsError, match="directory"):
        load({}, {}, tmp_path)
    with pytest.raises(SettingsError, match=r"TOML.*line 1"):
        load({}, {}, toml_file(tmp_path, "port = = 1\n"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="UTF-8"):
        load({}, {}, binary)


@given(text=st.text(max_size=200))
def test_whatever_a_file_holds_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("c") / "x.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    message = _message_of(lambda: load({}, {}, path))
    assert message is None or str(path) in message


@given(name=st.sampled_from(sorted(SETTINGS)), text=st.text(max_size=60))
def test_whatever_a_variable_holds_it_is_read_or_refused(name: str, text: str) -> None:
    message = _message_of(lambda: load({}, {variable(name): text}))
    assert message is None or name in message or variable(name) in message


def _message_of(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except SettingsError as error:
        return error.message
    return None


# --- values that contradict each other ----------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "10.0.0.1"])
def test_another_address_than_loopback_needs_a_key(host: str) -> None:
    with pytest.raises(SettingsError, match=r"OUZEL_API_KEY.*127\.0\.0\.1"):
        load({"host": host}, {})
    assert load({"host": host}, {"OUZEL_API_KEY": "k"}).host == host
    with pytest.raises(SettingsError, match="OUZEL_API_KEY"):
        load({"host": host}, {"OUZEL_API_KEY": ""})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("localhost.example.org", False), ("127.0.0.1.example.org", False), ("0", False),
        ("128.0.0.1", False), ("", False), ("2130706433", False), ("[::1]", False),
    ],
)  # fmt: skip
def test_what_counts_as_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_script_and_an_engine_elsewhere_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match=r"engine_url \(from --engine-url\).*script \(from OUZ"):
        load({"engine_url": "http://localhost/v1"}, {"OUZEL_SCRIPT": "s.toml"})


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://a b", "http://x:99999", "http://[::1"]
)
def test_an_engine_url_must_be_one(url: str) -> None:
    with pytest.raises(SettingsError, match="engine_url"):
        load({"engine_url": url}, {})


def test_a_password_in_the_engine_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="engine_key") as caught:
        load({"engine_url": "http://me:hunter2@localhost/v1"}, {})
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "tab\t"])
def test_a_key_must_fit_into_a_header_and_is_never_repeated(key: str) -> None:
    with pytest.raises(SettingsError, match="api_key") as caught:
        load({}, {"OUZEL_API_KEY": key})
    assert key not in caught.value.message


def test_settings_made_by_hand_are_checked_too() -> None:
    with pytest.raises(SettingsError, match="port"):
        Settings(port=70_000)
    with pytest.raises(SettingsError, match="idle_timeout"):
        Settings(idle_timeout=math.nan)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


# --- what is shown ------------------------------------------------------------------------------


def test_secrets_are_shown_nowhere() -> None:
    settings = load({}, {"OUZEL_API_KEY": "hunter2", "OUZEL_ENGINE_KEY": "hunter3"})
    shown = repr(settings) + repr(settings.masked())
    assert "hunter" not in shown
    masked = {name: (value, source) for name, value, source in settings.masked()}
    assert masked["api_key"] == ("••••••••", "OUZEL_API_KEY")
    assert masked["port"] == ("8321", "default")
    assert list(masked) == list(SETTINGS)
    assert {name: value for name, value, _ in load({}, {}).masked()}["api_key"] == "none"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
    ],
)
def test_where_this_machine_finds_the_server(host: str, url: str) -> None:
    assert Settings(host=host, port=80, api_key="k").local_url == url


def test_capabilities_are_those_that_engines_may_have() -> None:
    """config may not import core, so the list stands twice; this keeps them one."""
    assert SETTINGS["engine_capabilities"].choices == get_args(Capability)


def test_every_default_is_valid_and_described() -> None:
    settings: dict[str, Any] = dataclasses.asdict(Settings())
    assert set(settings) - {"sources"} == set(SETTINGS)
    for name, meta in SETTINGS.items():
        assert meta.help.endswith("."), name
        assert meta.shown, name


def test_the_docs_list_every_setting_as_it_is() -> None:
    """Each row: name, flag, variable, default, meaning. A new setting fails here until it is in."""
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|\n ").split("|")]
        for line in DOCS.read_text().splitlines()
        if line.startswith("| `")
    ]
    listed = {row[0]: row[1:] for row in rows}
    assert list(listed) == list(SETTINGS)
    for name, meta in SETTINGS.items():
        unit = f" {meta.unit}" if meta.unit and meta.shown != "0" else ""
        assert listed[name] == [flag(name), variable(name), meta.shown + unit, meta.help], name
