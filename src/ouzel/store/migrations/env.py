"""Run by Alembic; takes the connection that `migrate.py` (or a developer's script) hands over."""

from __future__ import annotations

from alembic import context

from ouzel.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite alters tables by copying them.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
