"""What is kept of containers: found again after any death, at any moment of a move."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ouzel.core.errors import StoreError
from ouzel.core.files import ContainerInfo, ContainerSpec
from ouzel.sandbox import registry as module
from ouzel.sandbox.registry import Meta, Registry

ID = "cntr_" + "0a" * 24


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "home")
    registry.open()
    yield registry
    registry.close()


def made(registry: Registry, container_id: str = ID) -> Meta:
    spec = ContainerSpec(name="Zahlen 🙂", idle_minutes=5, file_ids=("file-1",))
    info = ContainerInfo(container_id, "alice", spec, 1.5, 2.5)
    meta = Meta(info, registry.make_place(), used=True, puts=frozenset({"a.csv"}))
    registry.save(meta)
    (registry.folder(meta.place).work / "a.csv").write_text("1")
    return meta


def again(registry: Registry) -> dict[str, Meta]:
    registry.close()
    return registry.open()


def test_all_of_it_is_found_again(registry: Registry) -> None:
    meta = made(registry)
    assert again(registry) == {ID: meta}
    assert (registry.folder(meta.place).work / "a.csv").read_text() == "1"


def test_what_was_cut_short_is_cleaned_up(registry: Registry, tmp_path: Path) -> None:
    meta = made(registry)
    nobodys = registry.make_place()
    (registry.incoming / "half").write_text("half a file")
    (tmp_path / "home" / "containers" / ("cntr_" + "1" * 48)).mkdir()
    (tmp_path / "home" / "containers" / ID / "meta.json.new").write_text("{half")
    assert again(registry) == {ID: meta}
    assert not registry.folder(nobodys).work.exists()
    assert list(registry.incoming.iterdir()) == []
    assert [each.name for each in (tmp_path / "home" / "containers").iterdir()] == [ID]


def test_a_move_that_was_cut_short_is_brought_to_its_end(registry: Registry) -> None:
    meta = made(registry)
    (registry.folder(meta.place).work / "b.csv").write_text("2")
    place = registry.make_place()
    moving = replace(meta, place=place, leaving=meta.place)
    registry.save(moving)
    old = registry.folder(meta.place).work
    (old / "a.csv").rename(registry.folder(place).work / "a.csv")
    found = again(registry)[ID]
    assert found == replace(meta, place=place)
    assert sorted(each.name for each in registry.folder(place).work.iterdir()) == ["a.csv", "b.csv"]
    assert not old.exists()
    assert again(registry) == {ID: found}


def test_a_damaged_one_is_left_alone_and_its_files_stay(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meta = made(registry)
    path = tmp_path / "home" / "containers" / ID / "meta.json"
    for damage in ["", "{", "[]", '{"format": 99}', path.read_text().replace(meta.place, "../x")]:
        path.write_text(damage)
        with caplog.at_level(logging.WARNING):
            assert again(registry) == {}
        assert "cannot be read" in caplog.text
        assert (registry.folder(meta.place).work / "a.csv").exists()
        caplog.clear()


def test_one_without_its_folder_is_reported_expired(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    meta = made(registry)
    registry.remove_place(meta.place)
    with caplog.at_level(logging.WARNING):
        found = again(registry)[ID]
    assert (found.info.status, found.place) == ("expired", "")


def test_forgetting_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    registry.forget(made(registry))
    assert list((tmp_path / "home" / "containers").iterdir()) == []
    assert list((tmp_path / "home" / "places").iterdir()) == []
    assert again(registry) == {}


def test_a_home_has_one_server(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.2)
    other = Registry(tmp_path / "home")
    with pytest.raises(StoreError, match="Another server"):
        other.open()
    registry.close()
    other.open()
    other.close()


def test_a_home_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        Registry(tmp_path / "file" / "home").open()
