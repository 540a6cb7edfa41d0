"""Whether code can be run is found out before the server listens; where not, there is a reason."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ouzel.build import code
from ouzel.build.code import check_code, open_containers, plan_code
from ouzel.build.engine_checks import _Quiet
from ouzel.build.upkeep import upkeep
from ouzel.config import Settings
from ouzel.core.errors import OuzelError, StoreError
from ouzel.sandbox.environment import EnvironmentFailed


def _settings(tmp_path: Path, **more: object) -> Settings:
    values = {"home": tmp_path / "home", "cache": Path.home() / ".cache" / "ouzel"} | more
    return Settings(**values)  # type: ignore[arg-type]


def test_where_it_is_off_nothing_is_looked_at(tmp_path: Path) -> None:
    settings = _settings(tmp_path, code_interpreter="off")
    plan = plan_code(settings, _Quiet())
    assert plan.why_not == code.OFF
    assert list(tmp_path.iterdir()) == []
    assert [finding.level for finding in check_code(settings)] == ["note"]


def test_here_code_can_be_run(tmp_path: Path) -> None:
    plan = plan_code(_settings(tmp_path, code_interpreter="on"), _Quiet())
    assert plan.jail is not None
    assert plan.interpreter is not None
    assert plan.why_not == ""


@pytest.mark.parametrize("wish", ["auto", "on"])
def test_a_home_that_cannot_be_used(tmp_path: Path, wish: str) -> None:
    (tmp_path / "home").write_text("no folder")
    settings = _settings(tmp_path, code_interpreter=wish)
    if wish == "on":
        with pytest.raises(OuzelError, match="cannot be used"):
            plan_code(settings, _Quiet())
    else:
        plan = plan_code(settings, _Quiet())
        assert "cannot be used" in plan.why_not
        assert plan.jail is None


def test_without_its_environment_it_is_off_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise EnvironmentFailed("The package index cannot be reached.")

    monkeypatch.setattr(code, "ensure_interpreter", fails)
    plan = plan_code(_settings(tmp_path), _Quiet())
    assert plan.why_not.endswith("The package index cannot be reached.")
    with pytest.raises(EnvironmentFailed):
        plan_code(_settings(tmp_path, code_interpreter="on"), _Quiet())


async def test_without_a_jail_there_are_no_containers(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    assert open_containers(settings, code.CodePlan(why_not="No."), None) is None  # type: ignore[arg-type]


async def test_upkeep_goes_on_after_an_error_and_ends_with_its_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = {"full": 0, "broken": 0, "fine": 0}

    async def full() -> int:
        calls["full"] += 1
        raise StoreError("The disk is full.")

    async def broken() -> int:
        calls["broken"] += 1
        raise ZeroDivisionError

    async def fine() -> int:
        calls["fine"] += 1
        return 0

    async with upkeep(full, broken, fine, every=0.001):
        async with asyncio.timeout(10):
            while min(calls.values()) < 3:
                await asyncio.sleep(0.001)
    after = dict(calls)
    await asyncio.sleep(0.02)
    assert calls == after
    assert "The disk is full." in caplog.text
