"""`doctor` on what an engine can: as it was seen, and where the catalogue expected otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ouzel.build import ability_checks
from ouzel.build.finding import Finding
from ouzel.config import Settings
from ouzel.core.contracts import EngineInfo
from ouzel.core.turns import Pace
from ouzel.engines.local_notes import about, write_notes
from ouzel.engines.upstream_probe import Findings
from ouzel.engines.weights import ResolvedModel, load_catalogue, resolve
from ouzel.engines.wire_turn import PLAIN

pytestmark = pytest.mark.tiny

SEEN = Findings(
    frozenset({"grammar", "opening"}),
    "no",
    PLAIN,
    (("thinking", "no: none was seen"), ("grammar", "yes: a word was forced")),
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def weights(tiny_weights: Path, tmp_path: Path) -> ResolvedModel:
    """A file that the catalogue does not know."""
    return resolve(str(tiny_weights), load_catalogue(tmp_path), tmp_path)


def told(settings: Settings, weights: ResolvedModel) -> dict[str, Finding]:
    return {each.name: each for each in ability_checks.of_weights(settings, weights)}


def keep(settings: Settings, weights: ResolvedModel, findings: Findings = SEEN) -> None:
    known = about(weights.path, "1.0")
    write_notes(settings.home, known, weights.path, findings, Pace(50, 20))


def test_weights_that_were_never_loaded(settings: Settings, weights: ResolvedModel) -> None:
    assert "not known yet" in told(settings, weights)["weights"].text
    other = replace(weights, path=settings.home / "other.gguf")
    other.path.write_bytes(b"x")
    keep(settings, other)
    assert "not known yet" in told(settings, weights)["weights"].text


def test_weights_as_they_were_seen(settings: Settings, weights: ResolvedModel) -> None:
    keep(settings, weights)
    found = told(settings, replace(weights, entry=None))
    assert "xllamacpp 1.0" in found["weights"].text
    assert found["grammar"].text == "yes: a word was forced"
    assert found["pace"].text == "50 tokens a second read, 20 generated"
    assert found["tool style"].text == "guided"
    assert {each.level for each in found.values()} == {"ok"}


def test_what_the_catalogue_expected_and_was_not_seen(
    settings: Settings, weights: ResolvedModel
) -> None:
    default = load_catalogue().default
    entry = msgspec.structs.replace(default, tool_style="native", thinking="native")
    keep(settings, weights)
    found = told(settings, replace(weights, entry=entry))
    assert found["tool style"].level == "note"
    assert "guided (no call came when it was tried)" in found["tool style"].text
    assert found["thinking as expected"].level == "note"
    decided = told(replace(settings, tool_style="native"), replace(weights, entry=entry))
    assert (decided["tool style"].level, decided["tool style"].text) == ("ok", "native")
    keep(settings, weights, replace(SEEN, capabilities=frozenset({"tools"}), thinks="channel"))
    found = told(settings, replace(weights, entry=entry))
    assert found["tool style"].text == "native"
    assert "thinking as expected" not in found


def test_an_engine_that_was_just_asked() -> None:
    info = EngineInfo(
        "m",
        100,
        frozenset({"stop", "grammar"}),
        0.0,
        detail=(("engine", "upstream"), ("can stop", "yes: it stopped"), ("can seed", "no: no")),
        tool_style="native",
    )
    found = {each.name: each.text for each in ability_checks.of_running(info)}
    assert found == {
        "stop": "yes: it stopped",
        "seed": "no: no",
        "grammar": "yes: set (engine_capabilities)",
        "tool style": "native",
    }
