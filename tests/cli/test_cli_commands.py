"""Help, flags, version, models, pull, doctor: what each command shows and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from terminals import Done, environment, run, run_process, terminal

import ouzel
from ouzel.config import SETTINGS, flag, variable

COMMANDS = (
    *("serve", "ask", "chat", "pull", "models", "doctor", "rotate-sealing-key"),
    *("gc", "export", "import", "backup", "version"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, home: Path) -> None:
    done = run(command, "--help", home=home)
    assert done.code == 0
    assert f"ouzel {command}" in done.out.partition("Example")[2]
    assert run(command, "-h", home=home).out == done.out


def test_help_names_every_command(home: Path) -> None:
    done = run_process("--help", home=home)
    assert done.code == 0
    assert all(f"  {command} " in done.out for command in COMMANDS)
    assert "..." not in done.out.partition("Commands:")[2], "a summary is too long"


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_every_setting_is_a_flag_that_says_its_variable(command: str, home: Path) -> None:
    done = run(command, "--help", home=home, COLUMNS="200", TERMINAL_WIDTH="200")
    words = done.out.split()
    for name in SETTINGS:
        assert flag(name) in words
        assert variable(name) in done.out
    assert "--config" in words


def test_help_loads_nothing_heavy() -> None:
    """Half a second is the budget; a count of modules holds on a slow machine, too."""
    code = (
        "import sys; sys.argv = ['ouzel', '--help']\n"
        "from ouzel.cli import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "heavy = 'rich aiohttp asyncio sqlalchemy starlette uvicorn msgspec psutil xllamacpp'\n"
        "print('LOADED', *sorted(set(heavy.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "nonsense"),
        (["serve", "--prot", "1"], "--port"),
        (["serve", "--port"], "--port"),
        (["serve", "extra"], "extra"),
        (["serve", "--port", "http"], "whole number"),
        (["serve", "--host", "0.0.0.0"], "OUZEL_API_KEY"),
        (["serve", "--config", "/no/such/file.toml"], "/no/such/file.toml"),
        (["doctor", "--log-level", "loud"], "debug, info"),
        (["models", "--home", ""], "home"),
    ],
)
def test_a_wrong_command_line_is_exit_2(arguments: list[str], says: str, home: Path) -> None:
    done = run(*arguments, home=home)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_secret_is_never_repeated(home: Path) -> None:
    done = run("serve", "--api-key", "hunter2 with spaces", home=home)
    assert done.code == 2
    assert "hunter2" not in done.err


def test_version(home: Path) -> None:
    assert run("version", "--short", home=home).out.strip() == ouzel.__version__
    lines = dict(line.split() for line in run("version", home=home).out.splitlines())
    assert lines["ouzel"] == ouzel.__version__
    assert lines["python"] == sys.version.split()[0]
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert set(lines) == {"ouzel", "python", "xllamacpp"}
    assert any(need.startswith("xllamacpp") for need in project["project"]["dependencies"])


def test_models_list_the_catalogue(home: Path) -> None:
    done = run("models", home=home)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["NAME", "ON", "DISK", "SIZE", "FITS", "CONTEXT"]
    assert lines[1].split()[:2] == ["qwen2.5-coder-1.5b-instruct", "-"]
    assert "the default" in lines[2]
    assert "o4-mini" in lines[2]
    rows = json.loads(run("models", "--json", home=home).out)
    assert [row["name"] for row in rows] == [line.split()[0] for line in lines[1::2]]
    assert {row["on_disk"] for row in rows} == {"no"}


def test_models_show_the_users_own_and_name_its_mistakes(home: Path) -> None:
    state = home / "state"
    state.mkdir()
    own = state / "catalogue.toml"
    own.write_text("[model.mine]\nodd = 1")
    done = run("models", home=home, OUZEL_HOME=str(state))
    assert done.code == 1
    assert str(own) in done.err
    assert "odd" in done.err or "mine" in done.err
    assert done.err.count("\n") == 1


def test_pull_names_what_was_meant(home: Path) -> None:
    done = run("pull", "smolm2", home=home)
    assert done.code == 1
    assert "smollm2" in done.err
    assert not (home / ".cache").exists()


@pytest.mark.tiny
def test_pull_says_where_the_weights_are(home: Path, tiny_weights: Path) -> None:
    cache = str(tiny_weights.parents[1])
    done = run("pull", "tiny", "--cache", cache, home=home)
    assert done.code == 0
    assert done.out.splitlines()[-1] == f"✓ smollm2-135m-instruct  {tiny_weights}"
    rows = json.loads(run("models", "--json", "--cache", cache, home=home).out)
    found = {row["name"]: row["on_disk"] for row in rows}
    assert found["smollm2-135m-instruct"] == "yes"


def test_pull_into_a_cache_that_cannot_be_made(home: Path) -> None:
    (home / "file").write_text("")
    done = run("pull", "tiny", "--cache", str(home / "file" / "cache"), home=home)
    assert done.code == 1
    assert str(home / "file") in done.err
    assert "Traceback" not in done.err


def test_a_pull_that_is_interrupted_leaves_a_terminal_that_works(home: Path) -> None:
    with terminal("pull", home=home) as shown:
        shown.expect("(checking|downloading)")
        shown.type("\x03")
        assert shown.end() == 130
    assert "Traceback" not in shown.seen
    assert shown.seen.rindex("\x1b[?25h") > shown.seen.rindex("\x1b[?25l"), "the cursor is back"


def doctored(home: Path, *arguments: str, **more: str) -> Done:
    return run("doctor", *arguments, home=home, **more)


def test_doctor_shows_settings_with_their_source_and_no_secret(home: Path, script: Path) -> None:
    file = home / "my.toml"
    file.write_text("slots = 2\nengine_key = 'hunter3'")
    file.chmod(0o600)
    done = doctored(
        home, "--port", "0", "--script", str(script), "--config", str(file), OUZEL_API_KEY="hunter2"
    )
    assert done.code == 0, done.out
    assert "hunter" not in done.out
    shown = done.out.partition("Settings\n")[2]
    rows = {line.split()[0]: line.split(maxsplit=2) for line in shown.splitlines() if line}
    assert rows["port"] == ["port", "0", "--port"]
    assert rows["api_key"] == ["api_key", "••••••••", "OUZEL_API_KEY"]
    assert rows["slots"] == ["slots", "2", f"{file}: slots"]
    assert rows["engine_key"][2] == f"{file}: engine_key"
    assert "Everything is in place" in done.out


def test_doctor_as_json(home: Path, script: Path) -> None:
    done = doctored(home, "--json", "--port", "0", "--script", str(script))
    told = json.loads(done.out)
    assert told["ok"] is True
    assert set(told["settings"]) == set(SETTINGS)
    assert {"area", "name", "level", "text", "advice"} == set(told["findings"][0])
    broken = doctored(home, "--json", "--port", "0", "--script", "/no/such/script")
    assert broken.code == 1
    assert json.loads(broken.out)["ok"] is False


def test_doctor_ends_with_1_where_there_is_a_problem(home: Path) -> None:
    done = doctored(home, "--port", "0", "--model", "/no/such.gguf")
    assert done.code == 1
    assert "1 problem." in done.out
    assert "→" in done.out


def test_what_nobody_expected_is_one_sentence_too(home: Path, tmp_path: Path) -> None:
    """A bug is told as one, and its traceback only on demand."""
    (tmp_path / "msgspec.py").write_text("raise ValueError('broken on purpose')")
    command = [sys.executable, "-m", "ouzel.cli", "models", "--json"]
    for level, traced in (("info", False), ("debug", True)):
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(home, PYTHONPATH=str(tmp_path), OUZEL_LOG_LEVEL=level),
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is traced
        assert "broken on purpose" in done.stderr
        assert "bug in Ouzel" in done.stderr
