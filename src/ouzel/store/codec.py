"""Core values as JSON bytes, and back.

Writing is msgspec's own dataclass encoder: it runs for every event of every stored run.

Reading takes two steps. msgspec checks and reads the JSON, but it cannot tell the members of a
union of dataclasses apart; so every core class has a mirror, a msgspec struct that is made from its
type hints and told apart by its `kind`, and what was read into mirrors is then turned into core's
own classes. A new item or event class in core needs no line here, as long as it carries a constant
`kind` wherever it stands in a union.

Reading is strict: a missing field (without a default), a field or kind that is not known, or a
value of another type is a DamagedRecord. A field that core adds later needs a default, so that
older records still read; a field that core drops or renames needs a migration.

JSON has no infinities and no NaN: msgspec writes null for them. A null where the type is a plain
`float` is read as minus infinity, which is what an engine means by an impossible token.

This file does not know tables, nor what the values are for.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import threading
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

import msgspec

from ouzel.core.errors import StoreError
from ouzel.core.events import Event
from ouzel.core.items import Item
from ouzel.core.runs import Run
from ouzel.store.packing import Deltas, packed, unpacked

_building = threading.Lock()
"""Held while mirrors are made: they are shared, and half made until all their fields are known."""

Restore = Callable[[Any], Any]
"""From what msgspec read to what core holds."""


class DamagedRecord(StoreError):
    """What is on file is not what this version writes."""


def encode_run(run: Run) -> bytes:
    """The run as JSON. Raises StoreError if it holds what JSON cannot (half a surrogate pair)."""
    return _encode(run)


def encode_events(events: Sequence[Event]) -> bytes:
    """The events, packed, as one JSON array. Raises StoreError like `encode_run`."""
    return _encode(packed(events))


def decode_run(body: bytes) -> Run:
    """The run that `encode_run` wrote. Raises DamagedRecord if it is not one."""
    run: Run = _decode(body, _run_reader(), "run")
    return run


def decode_events(body: bytes) -> tuple[Event, ...]:
    """The events that `encode_events` wrote. Raises DamagedRecord if they are not."""
    records: tuple[Event | Deltas, ...] = _decode(body, _events_reader(), "event")
    return unpacked(records)


def encode_item(item: Item) -> bytes:
    """The item as JSON. Raises StoreError like `encode_run`."""
    return _encode(item)


def decode_item(body: bytes) -> Item:
    """The item that `encode_item` wrote. Raises DamagedRecord if it is not one."""
    item: Item = _decode(body, _item_reader(), "item")
    return item


def decode_turn(body: bytes) -> tuple[Item, ...]:
    """Input and output items of a run, in half the time of `decode_run`: the rest is skipped.

    Raises DamagedRecord.
    """
    items: tuple[Item, ...] = _decode(body, _turn_reader(), "run")
    return items


def encode_metadata(metadata: Mapping[str, str]) -> bytes:
    """The pairs as a JSON object. Raises StoreError like `encode_run`."""
    return _encode(metadata)


def decode_metadata(body: bytes) -> Mapping[str, str]:
    """The pairs that `encode_metadata` wrote. Raises DamagedRecord if they are not."""
    metadata: Mapping[str, str] = _decode(body, _metadata_reader(), "conversation")
    return metadata


class Asked(msgspec.Struct):
    """What lists of runs are filtered by, of a run's request."""

    model: str
    metadata: dict[str, str] = {}


class Glance(msgspec.Struct):
    """The little of a run that lists are filtered by; the rest is skipped, not checked."""

    model: str
    request: Asked


def glance_run(body: bytes) -> Glance:
    """The same as `decode_run` in a tenth of its time. Raises DamagedRecord."""
    try:
        return _glancer.decode(body)
    except msgspec.MsgspecError as error:
        raise _damaged("run", error) from error


def _plain(value: object) -> object:
    """What msgspec does not write by itself: read-only mappings."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no place in JSON")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_glancer = msgspec.json.Decoder(Glance)


def _encode(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        # The error itself quotes what the client wrote; it must not travel on.
        raise StoreError("The text holds half of a surrogate pair and cannot be kept.") from None
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise StoreError(f"A value cannot be kept: {error}.") from error


def _decode(body: bytes, reader: Reader, what: str) -> Any:
    try:
        return reader.restore(reader.decoder.decode(body))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _damaged(what, error) from error


def _damaged(what: str, error: Exception) -> DamagedRecord:
    return DamagedRecord(
        f"A stored {what} is damaged or comes from another version of Ouzel ({error})."
    )


class Reader:
    """Both steps of reading for one type hint. Raises TypeError for hints that cannot be read."""

    def __init__(self, hint: Any) -> None:
        with _building:
            self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_mirrored(hint))
            self.restore: Restore = _restorer(hint) or (lambda value: value)


class _TurnReader(Reader):
    """Reads of a run what was said in it."""

    def __init__(self) -> None:
        super().__init__(tuple[Item, ...])
        of_items = self.restore
        with _building:
            items = _mirrored(tuple[Item, ...])
            asked = msgspec.defstruct("Asked", [("input", items)])
            turn = msgspec.defstruct("Turn", [("request", asked), ("output", items, ())])
        self.decoder = msgspec.json.Decoder(turn)
        self.restore = lambda run: (*of_items(run.request.input), *of_items(run.output))


@functools.cache
def _run_reader() -> Reader:
    return Reader(Run)


@functools.cache
def _events_reader() -> Reader:
    return Reader(tuple[Event | Deltas, ...])


@functools.cache
def _item_reader() -> Reader:
    return Reader(Item)


@functools.cache
def _turn_reader() -> Reader:
    return _TurnReader()


@functools.cache
def _metadata_reader() -> Reader:
    return Reader(Mapping[str, str])


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _mirrored(hint: Any) -> Any:
    """The hint with mirrors in place of core's classes."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _record(hint).mirror
    if hint is float:
        return float | None
    if _is_union(hint):
        # Members are mirrored one by one, except that `float | None` keeps its None.
        members = [each if each is float else _mirrored(each) for each in get_args(hint)]
        return functools.reduce(operator.or_, members)
    if get_origin(hint) is tuple:
        members = [each if each is ... else _mirrored(each) for each in get_args(hint)]
        return types.GenericAlias(tuple, tuple(members))
    if get_origin(hint) is Mapping:
        key, value = get_args(hint)
        return types.GenericAlias(dict, (key, _mirrored(value)))
    return hint


def _restorer(hint: Any) -> Restore | None:
    """What turns mirrors within a value into core's classes; None where there can be none."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _record(hint).restore
    if hint is float:
        return lambda value: float("-inf") if value is None else value
    if _is_union(hint):
        return _union_restorer([each for each in get_args(hint) if each is not float])
    if get_origin(hint) is tuple and get_args(hint)[1:] == (...,):
        return _each_item(_restorer(get_args(hint)[0]))
    if get_origin(hint) is Mapping:
        return _each_value(_restorer(get_args(hint)[1]))
    if any(_restorer(each) for each in get_args(hint)):
        raise TypeError(f"the store cannot read {hint!r} yet")
    return None


def _each_item(restore: Restore | None) -> Restore | None:
    if restore is None:
        return None
    return lambda value: tuple(map(restore, value)) if value else ()


def _each_value(restore: Restore | None) -> Restore | None:
    if restore is None:
        return None
    return lambda value: {key: restore(each) for key, each in value.items()}


def _union_restorer(members: Sequence[Any]) -> Restore | None:
    """Picks by the mirror's class; anything else has nothing to be turned."""
    by_mirror: dict[type, Restore] = {}
    for member in members:
        if dataclasses.is_dataclass(member) and isinstance(member, type):
            by_mirror[_record(member).mirror] = _record(member).restore
        elif _restorer(member):
            raise TypeError(f"the store cannot read {member!r} within a union yet")
    if not by_mirror:
        return None

    def restore(value: Any) -> Any:
        turn = by_mirror.get(type(value))
        return value if turn is None else turn(value)

    return restore


class _Record:
    """One class of core and its mirror.

    Args:
        cls: a dataclass whose fields are all given to its constructor, but for a constant `kind`.
    """

    def __init__(self, cls: type) -> None:
        fields = {each.name: each for each in dataclasses.fields(cls)}
        kind = fields.pop("kind", None)
        tag = None if kind is None else str(kind.default)
        if any(each.kw_only or not each.init for each in fields.values()):
            raise TypeError(f"the store cannot make a {cls.__name__} from its fields")
        self._cls = cls
        self._hints = {name: typing.get_type_hints(cls)[name] for name in fields}
        self._restorers: list[tuple[int, Restore]] = []
        self.mirror = msgspec.defstruct(
            cls.__name__,
            [_mirror_field(each) for each in fields.values()],
            tag_field=None if tag is None else "kind",
            tag=tag,
            forbid_unknown_fields=True,
        )

    def fill(self) -> None:
        """Give the mirror its types. They come late because a class may hold itself."""
        for at, (name, hint) in enumerate(self._hints.items()):
            self.mirror.__annotations__[name] = _mirrored(hint)
            if (restore := _restorer(hint)) is not None:
                self._restorers.append((at, restore))

    def restore(self, value: Any) -> Any:
        """The core value for a mirror. Raises ValueError if the class itself refuses it."""
        if type(value) is self._cls:
            return value  # a default, which is core's own already
        given = msgspec.structs.astuple(value)
        if self._restorers:
            changed = list(given)
            for at, restore in self._restorers:
                changed[at] = restore(changed[at])
            return self._cls(*changed)
        return self._cls(*given)


_records: dict[type, _Record] = {}


def _record(cls: type) -> _Record:
    record = _records.get(cls)
    if record is None:
        record = _records[cls] = _Record(cls)
        try:
            record.fill()
        except TypeError:
            del _records[cls]
            raise
    return record


def _mirror_field(field: dataclasses.Field[Any]) -> tuple[str, Any] | tuple[str, Any, Any]:
    if field.default_factory is not dataclasses.MISSING:
        return field.name, Any, msgspec.field(default_factory=field.default_factory)
    if field.default is not dataclasses.MISSING:
        default = field.default
        return field.name, Any, msgspec.field(default_factory=lambda: default)
    return field.name, Any
