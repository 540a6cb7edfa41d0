"""A few connections that only read, each in a thread of its own.

A read sees everything that was acknowledged before it began: in WAL mode each statement looks at
the last commit. It neither waits for the writer nor holds it up.

This file does not know tables or core values.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ouzel.core.errors import OuzelError, StoreError
from ouzel.store.sqlite import SqliteFile

THREADS = 2
"""Reads are short, and Python runs one at a time anyway; two hide each other's disk."""

T = TypeVar("T")


class Readers:
    """Runs functions that read.

    Args:
        file: a database that is ready for use.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._closed = False
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="ouzel-store-read")

    async def read(self, work: Callable[[sqlite3.Connection], T], doing: str) -> T:
        """Run `work` in a reading thread.

        Args:
            work: takes a connection; decodes there too, so that the event loop goes on.
            doing: what it is for, after "The store could not".

        Raises:
            OuzelError: what `work` raised.
            StoreError: the file could not be read.
        """
        if self._closed:
            raise StoreError("The store is closed.")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._run, work, doing)

    async def close(self) -> None:
        """Let reads that run come to their end, then close the connections. May be called twice."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)
        while self._connections:
            self._connections.pop().close()

    def _run(self, work: Callable[[sqlite3.Connection], T], doing: str) -> T:
        try:
            self._file.verify()
            return work(self._connection())
        except OuzelError:
            raise
        except Exception as error:
            raise self._file.explain(error, doing) from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._file.connect(read_only=True)
            self._local.connection = connection
            self._connections.append(connection)
        return connection
