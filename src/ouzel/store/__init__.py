"""What is kept: runs and their events, conversations, files and uploads, in SQLite for now, under
one schema with migrations; the bytes of files lie beside it.

`open_store` is the way in; `SqlStore` fulfils `core.contracts.Store` and
`core.contracts_state.StoredRuns`, and its `conversations` fulfil `Conversations`. `open_files`
comes after it; `SqlFiles` fulfils `core.contracts_files.Files`.
"""

from __future__ import annotations

from ouzel.store.conversations import SqlConversations
from ouzel.store.files import SqlFiles, open_files
from ouzel.store.files_keeping import FileLimits
from ouzel.store.sql import SqlStore, open_store

__all__ = ["FileLimits", "SqlConversations", "SqlFiles", "SqlStore", "open_files", "open_store"]
