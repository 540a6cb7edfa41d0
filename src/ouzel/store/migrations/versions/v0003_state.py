"""Conversations, batches, and what lists of stored runs need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make four tables, and add a column and four indexes to the runs."""
    op.add_column("runs", sa.Column("choice_of", sa.Text))
    op.create_index("runs_page", "runs", ["owner", "protocol", "created_at", "id"])
    op.create_index("runs_age", "runs", ["created_at"])
    some = sa.text("choice_of IS NOT NULL")
    op.create_index("runs_choices", "runs", ["choice_of"], sqlite_where=some, postgresql_where=some)
    some = sa.text("previous_id IS NOT NULL")
    op.create_index(
        "runs_previous", "runs", ["previous_id"], sqlite_where=some, postgresql_where=some
    )
    _conversations()
    _batches()


def _conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.Text, primary_key=True, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
    )
    op.create_index("conversations_page", "conversations", ["owner", "created_at"])
    op.create_table(
        "conversation_items",
        sa.Column(
            "conversation_id",
            sa.Text,
            sa.ForeignKey("conversations.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "position"),
    )
    op.create_index(
        "conversation_items_id",
        "conversation_items",
        ["conversation_id", "item_id"],
        unique=True,
    )


def _batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Text, primary_key=True, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("batches_page", "batches", ["owner", "created_at", "id"])
    states = ("validating", "in_progress", "finalizing", "cancelling")
    some = sa.text(f"status IN ({', '.join(repr(state) for state in states)})")
    op.create_index("batches_live", "batches", ["status"], sqlite_where=some, postgresql_where=some)
    op.create_table(
        "batch_lines",
        sa.Column(
            "batch_id", sa.Text, sa.ForeignKey("batches.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("result", sa.LargeBinary),
        sa.PrimaryKeyConstraint("batch_id", "number"),
    )
