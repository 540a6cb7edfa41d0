"""Server-sent events, from bytes to their data.

Pure and incremental: bytes go in as the network split them, the data of whole events comes out.
It knows nothing of JSON or of what the events mean.
"""

from __future__ import annotations

from typing import Final

from ouzel.core.errors import EngineDied

MAX_EVENT: Final = 4 * 2**20
"""Bytes that one event may have. Twenty alternatives with their bytes take 3 KB a token."""


class EventParser:
    """Cuts bytes into the data of server-sent events, wherever the bytes were split.

    Follows the HTML standard, 9.2.6: lines end with LF, CR LF or CR; data lines of one event are
    joined with LF; comments and other fields are skipped; a byte order mark may come first.
    """

    __slots__ = ("_carriage", "_data", "_line", "_line_size", "_size", "_started")

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of a line whose end has not come yet
        self._line_size = 0
        self._data: list[bytes] = []  # data lines of an event whose end has not come yet
        self._size = 0
        self._carriage = False
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """The events that these bytes complete. Raises EngineDied when one is over MAX_EVENT."""
        if b"\r" in data or self._carriage:
            data = self._plain_ends(data)
        if b"\n" not in data:
            self._line_size += len(data)
            if self._line_size > MAX_EVENT:
                raise _too_long()
            if data:
                self._line.append(data)
            return []
        if self._line:
            self._line.append(data)
            data = b"".join(self._line)
            self._line.clear()
        if not self._started:
            self._started = True
            data = data.removeprefix(b"\xef\xbb\xbf")
        lines = data.split(b"\n")
        rest = lines.pop()
        self._line_size = len(rest)
        if rest:
            self._line.append(rest)
        return self._events(lines)

    def close(self) -> list[bytes]:
        """What was complete but for its last line end, when the stream is over."""
        return self.feed(b"\n\n") if self._line or self._data else []

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        pending = self._data
        for line in lines:
            if line.startswith(b"data:"):
                value = line[6:] if line.startswith(b"data: ") else line[5:]
                self._size += len(value) + 1
                if self._size > MAX_EVENT:
                    raise _too_long()
                pending.append(value)
            elif not line and pending:
                events.append(pending[0] if len(pending) == 1 else b"\n".join(pending))
                pending.clear()
                self._size = 0
        return events

    def _plain_ends(self, data: bytes) -> bytes:
        if self._carriage:
            data = b"\r" + data
        # Whether a CR at the very end stands alone is known when the next byte is.
        self._carriage = data.endswith(b"\r")
        if self._carriage:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _too_long() -> EngineDied:
    return EngineDied(f"The engine sent an event of more than {MAX_EVENT} bytes.")
