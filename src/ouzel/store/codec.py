"""Core values as JSON bytes, and back.

Writing is msgspec's own dataclass encoder: it runs for every event of every stored run. Reading is
derived from the type hints of the dataclasses, so a new item or event class in core is read
without a line here, as long as it carries a constant `kind` wherever a union must tell it apart.

Reading is strict. A missing field (without a default), a field or kind that is not known, or a
value of another type is a DamagedRecord. A field that core adds later needs a default, so that
older records still read; a field that core drops or renames needs a migration.

JSON has no infinities and no NaN: msgspec writes null for them. A null where the type is a plain
`float` is read as minus infinity, which is what an engine means by an impossible token.

This file does not know tables, nor what the values are for.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin

import msgspec

from ouzel.core.errors import StoreError
from ouzel.core.events import Event
from ouzel.core.runs import Run

Reader = Callable[[Any], Any]
"""From what JSON holds to what core holds; raises _Mismatch."""


class DamagedRecord(StoreError):
    """What is on file is not what this version writes."""


def encode_run(run: Run) -> bytes:
    """The run as JSON. Raises StoreError if it holds what JSON cannot (a lone surrogate)."""
    return _encode(run)


def encode_events(events: Sequence[Event]) -> bytes:
    """The events as one JSON array. Raises StoreError like `encode_run`."""
    return _encode(events)


def decode_run(body: bytes) -> Run:
    """The run that `encode_run` wrote. Raises DamagedRecord if it is not one."""
    return cast("Run", _decode(body, Run, "run"))


def decode_events(body: bytes) -> list[Event]:
    """The events that `encode_events` wrote. Raises DamagedRecord if they are not."""
    return list(_decode(body, tuple[Event, ...], "event"))


def _plain(value: object) -> object:
    """What msgspec does not write by itself: read-only mappings."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} cannot be kept")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_decoder = msgspec.json.Decoder()


def _encode(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        # The error's own text quotes what the client wrote; ours must not.
        raise StoreError("The text holds half of a surrogate pair and cannot be kept.") from None
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise StoreError(f"A value cannot be kept: {error}.") from error


def _decode(body: bytes, hint: object, what: str) -> Any:
    try:
        return _reader(hint)(_decoder.decode(body))
    except (_Mismatch, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedRecord(
            f"A stored {what} is damaged or comes from another version of Ouzel ({error})."
        ) from error


class _Mismatch(Exception):
    """A value is not what its place asks for. Collects its path while the readers unwind."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        return f"{'.'.join(reversed(self.path)) or 'value'}: {self.reason}"


def _expected(what: str, value: object) -> _Mismatch:
    # Never the value itself: it may be part of a prompt.
    return _Mismatch(f"expected {what}, found {type(value).__name__}")


@cache
def _reader(hint: Any) -> Reader:
    """The reader of one type hint. Raises TypeError for hints that core does not use yet."""
    origin = get_origin(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if hint is Any or hint is object:
        return lambda value: value
    if origin is Literal:
        return _literal(get_args(hint))
    if origin in (Union, types.UnionType):
        return _union(get_args(hint))
    if origin is tuple and get_args(hint)[1:] == (...,):
        return _items(_reader(get_args(hint)[0]))
    if origin in (Mapping, dict) and get_args(hint)[0] is str:
        return _mapping(_reader(get_args(hint)[1]))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _Record(hint)
    raise TypeError(f"the store cannot read {hint!r} yet: add a reader in codec.py")


def _exactly(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise _expected(kind.__name__, value)
        return value

    return read


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if value is None:
        return float("-inf")
    if type(value) is int:
        return float(value)
    raise _expected("float", value)


_SCALARS: dict[Any, Reader] = {
    str: _exactly(str),
    int: _exactly(int),
    bool: _exactly(bool),
    float: _float,
    type(None): _exactly(type(None)),
}


def _literal(choices: tuple[Any, ...]) -> Reader:
    def read(value: Any) -> Any:
        if type(value) not in (str, int, bool) or value not in choices:
            raise _expected(f"one of {', '.join(map(str, choices))}", value)
        return value

    return read


def _items(item: Reader) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not list:
            raise _expected("array", value)
        try:
            done: list[Any] = []
            for each in value:
                done.append(item(each))
            return tuple(done)
        except _Mismatch as error:
            error.path.append(str(len(done)))
            raise

    return read


def _mapping(item: Reader) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _expected("object", value)
        return {key: item(each) for key, each in value.items()}

    return read


def _union(members: tuple[Any, ...]) -> Reader:
    """Records are told apart by their `kind`; beside them, None and one more type may stand."""
    by_kind: dict[object, Reader] = {}
    rest: list[Any] = []
    for member in members:
        reader = _reader(member)
        if isinstance(reader, _Record) and reader.kind is not None:
            by_kind[reader.kind] = reader
        elif member is not type(None):
            rest.append(reader)
    if len(rest) > 1:
        raise TypeError(f"the store cannot tell the members of {members} apart: give them a kind")
    optional = type(None) in members
    other: Reader | None = rest[0] if rest else None

    def read(value: Any) -> Any:
        if value is None and optional:
            return None
        if by_kind and type(value) is dict:
            reader = by_kind.get(value.get("kind"))
            if reader is not None:
                return reader(value)
            if other is None:
                raise _Mismatch("unknown or missing kind")
        if other is None:
            raise _expected("object", value)
        return other(value)

    return read


class _Record:
    """Reads one dataclass. Fields are looked up at first use, so that it may nest in itself."""

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._constants = {
            each.name: each.default for each in dataclasses.fields(cls) if not each.init
        }
        self.kind = self._constants.get("kind")
        self._fields: tuple[tuple[str, Reader, bool], ...] | None = None

    def __call__(self, value: Any) -> Any:
        if type(value) is not dict:
            raise _expected("object", value)
        given: dict[str, Any] = {}
        name = ""
        try:
            for name, reader, required in self._fields or self._look_up():
                if name in value:
                    given[name] = reader(value[name])
                elif required:
                    raise _Mismatch("missing")
        except _Mismatch as error:
            error.path.append(name)
            raise
        for name, constant in self._constants.items():
            if value.get(name) != constant:
                raise _Mismatch(f"{name} is not {constant!r}")
        if len(given) + len(self._constants) != len(value):
            raise _Mismatch(f"fields that {self._cls.__name__} does not have")
        return self._cls(**given)

    def _look_up(self) -> tuple[tuple[str, Reader, bool], ...]:
        hints = typing.get_type_hints(self._cls)
        self._fields = tuple(
            (
                each.name,
                _reader(hints[each.name]),
                each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING,
            )
            for each in dataclasses.fields(self._cls)
            if each.init
        )
        return self._fields
