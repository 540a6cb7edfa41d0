"""What is kept: runs and their events, files and uploads, in SQLite for now, under one schema with
migrations; the bytes of files lie beside it.

`open_store` is the way in; `SqlStore` fulfils `core.contracts.Store`. `open_files` comes after it;
`SqlFiles` fulfils `core.contracts_files.Files`.
"""

from __future__ import annotations

from ouzel.store.files import SqlFiles, open_files
from ouzel.store.files_keeping import FileLimits
from ouzel.store.sql import SqlStore, open_store

__all__ = ["FileLimits", "SqlFiles", "SqlStore", "open_files", "open_store"]
