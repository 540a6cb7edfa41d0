"""The fixed prefix on small real weights: read once, then found in every slot and after a start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from local_kit import GREEDY, PATIENT, SOON, answer, until

from ouzel.core.turns import Turn, TurnMessage
from ouzel.engines.local import LocalEngine, Overrides

pytestmark = pytest.mark.tiny

WORDS = "Our own words come first and never change, whatever is asked after them. " * 12
OTHERS = "Something else is said here at great length, and nothing of it is ours. " * 14


def asked(text: str, system: str = WORDS) -> Turn:
    return Turn((TurnMessage("system", system), TurnMessage("user", text)), GREEDY, 3)


WARM = Turn((TurnMessage("system", WORDS), TurnMessage("user", ".")), GREEDY)


@contextlib.asynccontextmanager
async def warmed(weights: Path, home: Path, *warm: Turn) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(
        weights,
        served_as="tiny",
        home=home,
        overrides=Overrides(context=768, slots=2, threads=1),
        timeouts=PATIENT,
        hung_after=60.0,
        restarts=SOON,
        warm=warm or (WARM,),
    )
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


async def unread(engine: LocalEngine, turn: Turn) -> int:
    """Prompt tokens that had to be read for this turn."""
    _, done = await answer(engine, turn)
    return done.usage.input_tokens - done.usage.cached_tokens


async def test_no_request_pays_for_it_in_any_slot_nor_after_others(
    tiny_weights: Path, tmp_path: Path
) -> None:
    async with warmed(tiny_weights, tmp_path) as engine:
        assert "read" in dict(engine.info.detail)["fixed prefix"]
        size = await engine.count_tokens(WARM)
        assert size > 150
        both = [asked("How are you?"), asked("What is the time?")]
        assert max(await asyncio.gather(*(unread(engine, turn) for turn in both))) < 20
        # Other conversations take both slots; the words come back from llama.cpp's own cache.
        foreign = [asked("One.", OTHERS), asked("Two.", "Well. " + OTHERS)]
        assert min(await asyncio.gather(*(unread(engine, turn) for turn in foreign))) > 100
        again = [asked("Who are you?"), asked("What is that?")]
        assert max(await asyncio.gather(*(unread(engine, turn) for turn in again))) < 20


async def test_the_next_start_and_the_next_life_restore_it(
    tiny_weights: Path, tmp_path: Path
) -> None:
    async with warmed(tiny_weights, tmp_path) as engine:
        before = engine.info
    async with warmed(tiny_weights, tmp_path) as engine:
        assert "restored" in dict(engine.info.detail)["fixed prefix"]
        assert engine.info.capabilities == before.capabilities, "kept, and not asked again"
        both = [asked("How are you?"), asked("What is the time?")]
        assert max(await asyncio.gather(*(unread(engine, turn) for turn in both))) < 20
        first = engine.pid
        assert first is not None
        psutil.Process(first).kill()
        await until(lambda: engine.pid not in (None, first) and engine.state == "ready")
        assert max(await asyncio.gather(*(unread(engine, turn) for turn in both))) < 20


@pytest.mark.parametrize("harm", ["cut", "changed", "no note", "foreign"])
async def test_a_damaged_prefix_is_made_anew(tiny_weights: Path, tmp_path: Path, harm: str) -> None:
    async with warmed(tiny_weights, tmp_path):
        pass
    folder = tmp_path / "prefixes"
    (saved,) = folder.glob("*.bin")
    content = saved.read_bytes()
    if harm == "cut":
        saved.write_bytes(content[: len(content) // 2])
    elif harm == "changed":
        saved.write_bytes(content[:-100] + bytes(100))
    elif harm == "no note":
        saved.with_suffix(".sha256").unlink()
    else:  # as if another llama.cpp had written it
        import hashlib

        saved.write_bytes(b"nonsense" * 1000)
        digest = hashlib.sha256(b"nonsense" * 1000).hexdigest()
        saved.with_suffix(".sha256").write_text(digest)
    async with warmed(tiny_weights, tmp_path) as engine:
        assert "read" in dict(engine.info.detail)["fixed prefix"]
        assert await unread(engine, asked("How are you?")) < 20
        assert saved.read_bytes() == content or len(saved.read_bytes()) == len(content)


async def test_other_words_take_the_place_of_the_old_ones(
    tiny_weights: Path, tmp_path: Path
) -> None:
    async with warmed(tiny_weights, tmp_path):
        pass
    (old,) = (tmp_path / "prefixes").glob("*.bin")
    other = Turn((TurnMessage("system", OTHERS), TurnMessage("user", ".")), GREEDY)
    async with warmed(tiny_weights, tmp_path, other, WARM) as engine:
        assert dict(engine.info.detail)["fixed prefix"].count("tokens") == 2
        assert old.exists()
        both = [asked("How are you?"), asked("How are you?", OTHERS)]
        assert [await unread(engine, turn) < 20 for turn in both] == [True, True]
    async with warmed(tiny_weights, tmp_path, other):
        pass
    assert not old.exists(), "nobody uses it"


async def test_a_prefix_that_does_not_fit_costs_time_only(
    tiny_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = Turn((TurnMessage("system", WORDS * 5), TurnMessage("user", ".")), GREEDY)
    with caplog.at_level(logging.WARNING, "ouzel.engines.local_prefix"):
        async with warmed(tiny_weights, tmp_path, long) as engine:
            assert dict(engine.info.detail)["fixed prefix"].startswith("none")
            assert (await answer(engine, asked("Hi", "Be kind.")))[1].reason
    assert "is not kept" in caplog.text
    assert "Our own words" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"{}", b'{"about": 1}', b"[" * 5000, b"\xff"])
async def test_notes_that_cannot_be_read_are_made_again(
    tiny_weights: Path, tmp_path: Path, content: bytes
) -> None:
    from ouzel.core.turns import Pace
    from ouzel.engines.local_notes import about, path_of, read_notes, write_notes
    from ouzel.engines.upstream_probe import Findings
    from ouzel.engines.wire_turn import Dialect

    path_of(tmp_path).write_bytes(content)
    assert read_notes(tmp_path) is None
    findings = Findings(
        frozenset({"stop", "grammar"}), "channel", Dialect(grammar="ebnf"), (("a", "yes: b"),)
    )
    known = about(tiny_weights, "1.0")
    write_notes(tmp_path, known, tiny_weights, findings, Pace(1, 2))
    notes = read_notes(tmp_path)
    assert notes is not None
    assert (notes.about, notes.findings, notes.pace) == (known, findings, Pace(1, 2))
    old = json.loads(path_of(tmp_path).read_text()) | {"probes": 0}
    path_of(tmp_path).write_text(json.dumps(old))
    assert read_notes(tmp_path) is None, "of other probes"
