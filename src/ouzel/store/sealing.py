"""Text that clients keep for us: sealed, so that nobody else can read, change or swap it.

A token is URL-safe base64 of version, key id, time of issue and nonce, and then the text under
AES-256-GCM. What comes before the text, and what it is bound to (kind, owner, model), is
authenticated with it. The first key seals, every key opens: that is how keys are rotated. Where
keys are kept, `sealing_keys` knows; docs/sealing.md says what this protects from, and what not.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import struct
import time
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ouzel.core.contracts_state import Sealed
from ouzel.core.errors import RequestError

KEY_BYTES: Final = 32
DAY: Final = 24 * 3600.0

_VERSION: Final = 1
_HEADER: Final = struct.Struct(">B8sQ")
"""Version, key id, whole seconds since the epoch."""

_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_LEAST: Final = _HEADER.size + _NONCE_BYTES + _TAG_BYTES
_HEADER_TEXT: Final = -(-_HEADER.size // 3) * 4
"""Characters of a token that hold all of its header."""

_EXPIRES: Final[frozenset[Sealed]] = frozenset({"reasoning"})
"""A compaction is all that is left of a conversation: it is good for as long as its key is."""


class KeySealer:
    """Fulfils `core.contracts_state.Sealer`.

    Args:
        keys: of 32 bytes each, the newest first. At least one.
        days: after which sealed thinking is no longer opened; 0 for never.
        clock: seconds since the epoch.
    """

    def __init__(
        self, keys: Sequence[bytes], days: float = 0, clock: Callable[[], float] = time.time
    ) -> None:
        self._ciphers = {key_id(key): AESGCM(key) for key in reversed(keys)}
        self._newest = key_id(keys[0])
        self._seconds = days * DAY
        self._clock = clock

    def seal(self, kind: Sealed, owner: str, model: str, text: str) -> str:
        """See the contract. The same text is never sealed into the same token twice."""
        header = _HEADER.pack(_VERSION, self._newest, max(0, int(self._clock())))
        nonce = os.urandom(_NONCE_BYTES)
        bound = _bound(header, kind, owner, model)
        # Half a surrogate pair is no UTF-8, and may be in what a model says.
        plain = text.encode("utf-8", "surrogatepass")
        return _text(header + nonce + self._ciphers[self._newest].encrypt(nonce, plain, bound))

    def open(self, kind: Sealed, owner: str, model: str, sealed: str) -> str:
        """See the contract. Work is in proportion to the token's length, whatever is in it."""
        if len(sealed) < _HEADER_TEXT:
            raise _not_ours()
        # Most of what is foreign shows in the header: the rest is then not even decoded.
        version, of, issued = _HEADER.unpack(_bytes(sealed[:_HEADER_TEXT])[: _HEADER.size])
        cipher = self._ciphers.get(of)
        raw = _bytes(sealed) if version == _VERSION and cipher else b""
        if cipher is None or len(raw) < _LEAST:
            raise _not_ours()
        nonce, content = raw[_HEADER.size :][:_NONCE_BYTES], raw[_HEADER.size + _NONCE_BYTES :]
        try:
            plain = cipher.decrypt(nonce, content, _bound(raw[: _HEADER.size], kind, owner, model))
        except InvalidTag:
            raise _not_ours() from None
        if kind in _EXPIRES and 0 < self._seconds < self._clock() - issued:
            raise _expired(self._seconds)
        return plain.decode("utf-8", "surrogatepass")


def key_id(key: bytes) -> bytes:
    """By which a token names its key; tells nothing of the key."""
    return hashlib.sha256(b"ouzel sealing key id\0" + key).digest()[:8]


def _bound(header: bytes, *to: str) -> bytes:
    """What is authenticated with the text; lengths keep one part from passing for another."""
    parts = [part.encode("utf-8", "surrogatepass") for part in to]
    return b"".join((header, *(struct.pack(">I", len(part)) + part for part in parts)))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _bytes(sealed: str) -> bytes:
    """The bytes of a token, or of its beginning; raises where it is not as `_text` writes it."""
    try:
        coded = sealed.encode("ascii").translate(_FROM_URL_SAFE)
        raw = binascii.a2b_base64(coded + b"=" * (-len(coded) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise _not_ours() from None
    # The last character has bits that decoding passes over: with others, it is another token.
    tail = len(raw) % 3
    if tail and not sealed.endswith(_text(raw[-tail:])):
        raise _not_ours()
    return raw


_FROM_URL_SAFE: Final = bytes.maketrans(b"-_+/=", b"+/   ")
"""What the usual alphabet alone has, and padding, becomes what no alphabet has."""


def _not_ours() -> RequestError:
    return RequestError(
        "The encrypted content could not be verified: it was altered, or was not made by this "
        "server for this account and this model. Give it back exactly as it came, or leave the "
        "item out.",
        code="invalid_encrypted_content",
    )


def _expired(seconds: float) -> RequestError:
    return RequestError(
        f"The encrypted content has expired: it can be given back for {seconds / DAY:g} days. "
        "Leave the item out.",
        code="invalid_encrypted_content",
    )
