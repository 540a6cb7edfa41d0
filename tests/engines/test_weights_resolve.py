"""From a name or a path to weights that can be served, and the list of what there is."""

from __future__ import annotations

import os
from datetime import date, timedelta
from pathlib import Path

import pytest
from weights_kit import ENTRY, PAIRS, make_gguf, sha256

from ouzel.core.errors import WeightsError
from ouzel.engines.weights import (
    Catalogue,
    NotPulled,
    Progress,
    UnknownModel,
    fits,
    load_catalogue,
    on_disk,
    resolve,
    rows,
)
from ouzel.engines.weights import disk as weights_disk

DATA = make_gguf()


def write_home(home: Path, more: str = "") -> Catalogue:
    home.mkdir(exist_ok=True)
    (home / "catalogue.toml").write_text(f"""
[model.mine]
{ENTRY}
modalities = ["text"]
aliases = ["my-own"]
files = [{{ name = "mine.gguf", size_bytes = {len(DATA)}, sha256 = "{sha256(DATA)}" }}]
source = {{ kind = "hub", repo = "a/b" }}
{more}
""")
    return load_catalogue(home)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return write_home(tmp_path / "home")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    return tmp_path / "cache"


@pytest.fixture
def pulled(cache: Path) -> Path:
    path = cache / "weights" / "mine.gguf"
    path.write_bytes(DATA)
    weights_disk.write_note(path, sha256(DATA))
    return path


# Names.


@pytest.mark.parametrize("name", ["mine", "MINE", "my-own"])
def test_a_name_on_disk(catalogue: Catalogue, cache: Path, pulled: Path, name: str) -> None:
    found = resolve(name, catalogue, cache)
    assert (found.name, found.path, found.mmproj) == ("mine", pulled, None)
    assert found.entry is catalogue.find("mine")
    assert found.header.architecture == "qwen2"
    assert found.size_bytes == len(DATA)
    assert found.aliases == ("my-own", *catalogue.default_aliases)
    assert found.warning is None


def test_a_name_that_is_not_on_disk_says_what_to_pull(catalogue: Catalogue, cache: Path) -> None:
    with pytest.raises(NotPulled, match="ouzel pull mine") as raised:
        resolve("my-own", catalogue, cache)
    assert raised.value.entry.name == "mine"


def test_nothing_is_hashed_while_the_note_holds(
    catalogue: Catalogue, cache: Path, pulled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_disk, "hash_file", None)
    assert resolve("mine", catalogue, cache).path == pulled


def test_without_a_note_it_is_hashed_once(
    catalogue: Catalogue, cache: Path, pulled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_disk.note_path(pulled).unlink()
    reports: list[Progress] = []
    resolve("mine", catalogue, cache, reports.append)
    assert reports[-1].phase == "checking"
    assert reports[-1].done == len(DATA)
    monkeypatch.setattr(weights_disk, "hash_file", None)
    resolve("mine", catalogue, cache)


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"size": "x", "mtime_ns": 1, "sha256": 2}'])
def test_a_damaged_note_is_as_none(
    catalogue: Catalogue, cache: Path, pulled: Path, note: str
) -> None:
    weights_disk.note_path(pulled).write_text(note)
    assert resolve("mine", catalogue, cache).path == pulled


def test_other_bytes_under_the_name_are_told_with_both_hashes(
    catalogue: Catalogue, cache: Path, pulled: Path
) -> None:
    other = make_gguf(seed=1)
    assert len(other) == len(DATA)
    pulled.write_bytes(other)
    os.utime(pulled, ns=(1, 1))
    with pytest.raises(WeightsError) as raised:
        resolve("mine", catalogue, cache)
    assert sha256(other) in str(raised.value)
    assert sha256(DATA) in str(raised.value)
    assert "ouzel pull mine" in str(raised.value)


def test_a_retired_entry_warns_and_names_its_successor(tmp_path: Path, cache: Path) -> None:
    for day, warned in ((date(2026, 1, 2), True), (date.today() + timedelta(days=30), False)):
        home = tmp_path / "home"
        catalogue = write_home(home, f'retired = {day}\nsuccessor = "gpt-oss-20b"')
        path = cache / "weights" / "mine.gguf"
        path.write_bytes(DATA)
        warning = resolve("mine", catalogue, cache).warning
        assert (warning is not None) == warned
        if warning is not None:
            assert "2026-01-02" in warning
            assert "'gpt-oss-20b'" in warning


def test_a_projector_that_is_missing_makes_it_not_pulled(tmp_path: Path, cache: Path) -> None:
    more = '[model.mine.mmproj]\nname = "mine-mmproj.gguf"\nabout_bytes = 5'
    catalogue = write_home(tmp_path / "home", more)
    weights = cache / "weights"
    (weights / "mine.gguf").write_bytes(DATA)
    with pytest.raises(NotPulled):
        resolve("mine", catalogue, cache)
    (weights / "mine-mmproj.gguf").write_bytes(make_gguf(seed=2))
    found = resolve("mine", catalogue, cache)
    assert found.mmproj == weights / "mine-mmproj.gguf"


# Paths.


def test_a_path_to_any_gguf(catalogue: Catalogue, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "Some-Model.Q4_K_M.gguf"
    path.write_bytes(DATA)
    found = resolve(str(path), catalogue, cache)
    assert (found.name, found.path, found.entry) == ("Some-Model.Q4_K_M", path, None)
    assert found.aliases == catalogue.default_aliases


def test_a_path_may_be_relative_or_start_at_home(
    catalogue: Catalogue, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.gguf").write_bytes(DATA)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for model in ("some.gguf", "./some.gguf", "~/some.gguf"):
        assert resolve(model, catalogue, cache).path == tmp_path / "some.gguf"


def test_a_name_goes_before_a_file_of_that_name(
    catalogue: Catalogue,
    cache: Path,
    pulled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "mine").write_bytes(DATA)
    monkeypatch.chdir(tmp_path)
    assert resolve("mine", catalogue, cache).entry is not None
    assert resolve("./mine", catalogue, cache).entry is None


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        ("gone.gguf", None, "There is no file"),
        ("text.gguf", b"hello, world", "not a GGUF"),
        ("short.gguf", DATA[:-10], "cut short"),
    ],
)
def test_a_path_that_will_not_do_is_told(
    catalogue: Catalogue, cache: Path, tmp_path: Path, model: str, data: bytes | None, said: str
) -> None:
    path = tmp_path / model
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(WeightsError, match=said):
        resolve(str(path), catalogue, cache)


def test_a_folder_is_told(catalogue: Catalogue, cache: Path) -> None:
    with pytest.raises(WeightsError, match="is a folder"):
        resolve(str(cache), catalogue, cache)


def test_neither_a_name_nor_a_file(catalogue: Catalogue, cache: Path) -> None:
    with pytest.raises(UnknownModel, match="Did you mean 'mine'"):
        resolve("mime", catalogue, cache)


def shard(number: int, count: int) -> bytes:
    return make_gguf([*PAIRS, ("split.no", 2, number), ("split.count", 2, count)])


def test_split_weights_are_served_by_their_first_file(
    catalogue: Catalogue, cache: Path, tmp_path: Path
) -> None:
    names = [f"big-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(shard(number, 3))
    found = resolve(str(tmp_path / names[0]), catalogue, cache)
    assert (found.name, found.size_bytes) == ("big", 3 * len(shard(0, 3)))
    with pytest.raises(WeightsError, match="name the first of them, big-00001-of-00003"):
        resolve(str(tmp_path / names[1]), catalogue, cache)
    (tmp_path / names[2]).write_bytes(shard(2, 3)[:-1])
    with pytest.raises(WeightsError, match=r"00003-of-00003.* was cut short"):
        resolve(str(tmp_path / names[0]), catalogue, cache)
    (tmp_path / names[2]).unlink()
    with pytest.raises(WeightsError, match=r"00003-of-00003.* cannot be read"):
        resolve(str(tmp_path / names[0]), catalogue, cache)


def test_a_renamed_part_of_split_weights_is_told(
    catalogue: Catalogue, cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(shard(0, 3))
    with pytest.raises(WeightsError, match="one of 3 files"):
        resolve(str(path), catalogue, cache)


# The list.


@pytest.mark.parametrize(
    ("needed", "memory", "fit"),
    [(8, 10, "fits"), (9, 10, "tight"), (10, 10, "tight"), (11, 10, "no")],
)
def test_whether_an_entry_fits(
    catalogue: Catalogue, needed: int, memory: int, fit: str, tmp_path: Path
) -> None:
    entry = catalogue.find("mine")
    scale = entry.memory_bytes / needed
    assert fits(entry, round(memory * scale)) == fit


def test_whether_a_file_fits() -> None:
    assert fits(10**9, 8 * 10**9) == "fits"
    assert fits(10**9, 2 * 10**9) == "tight"
    assert fits(10**9, 10**9) == "no"


def test_how_much_is_on_disk(catalogue: Catalogue, cache: Path) -> None:
    entry = catalogue.find("mine")
    path = cache / "weights" / "mine.gguf"
    assert on_disk(entry, cache) == "no"
    weights_disk.partial_folder(cache, "mine").mkdir(parents=True)
    assert on_disk(entry, cache) == "partial"
    path.write_bytes(DATA)
    assert on_disk(entry, cache) == "unverified"
    weights_disk.write_note(path, sha256(DATA))
    assert on_disk(entry, cache) == "yes"
    weights_disk.write_note(path, "0" * 64)
    assert on_disk(entry, cache) == "unverified"


def test_the_list_starts_with_the_default_and_ends_with_the_retired(
    tmp_path: Path, cache: Path, pulled: Path
) -> None:
    catalogue = write_home(tmp_path / "home", 'retired = 2026-01-01\nsuccessor = "gpt-oss-20b"')
    lines = rows(catalogue, cache, 16 * 10**9)
    assert len(lines) == len(catalogue.entries)
    assert lines[0].default
    assert "o4-mini" in lines[0].aliases
    assert (lines[-1].name, lines[-1].retired) == ("mine", True)
    assert (lines[-1].on_disk, lines[-1].successor) == ("yes", "gpt-oss-20b")
    needs = [line.memory_bytes for line in lines[1:-1]]
    assert needs == sorted(needs)
    by_name = {line.name: line for line in lines}
    assert by_name["gpt-oss-120b"].fit == "no"
    assert by_name["qwen3.5-4b"].fit == "fits"
    assert by_name["qwen3.5-4b"].modalities == ("text", "image")
    assert not by_name["qwen3-vl-4b-thinking"].size_exact


@pytest.mark.tiny
def test_the_tiny_weights_are_found_by_name_and_by_path(tiny_weights: Path) -> None:
    catalogue = load_catalogue()
    cache = tiny_weights.parent.parent
    by_name = resolve("tiny", catalogue, cache)
    assert by_name.path == tiny_weights
    assert by_name.header.context_length == by_name.entry.context_window  # type: ignore[union-attr]
    assert resolve(str(tiny_weights), catalogue, cache).header == by_name.header


@pytest.mark.weights
def test_the_default_weights_are_what_the_catalogue_says(default_weights: Path) -> None:
    catalogue = load_catalogue()
    found = resolve("o4-mini", catalogue, default_weights.parent.parent)
    assert found.path == default_weights
    assert found.header.name == "Qwen2.5 Coder 1.5B Instruct GGUF"
    assert found.header.context_length == catalogue.default.context_window
    assert found.header.has_chat_template
