"""What is kept: runs and their events, in SQLite for now, under one schema with migrations.

`open_store` is the way in; `SqlStore` fulfils `core.contracts.Store`.
"""

from __future__ import annotations

from ouzel.store.sql import SqlStore, open_store

__all__ = ["SqlStore", "open_store"]
