"""Files, uploads and their parts; their bytes lie on disk, not here."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make three tables."""
    op.create_table(
        "files",
        sa.Column("id", sa.Text, primary_key=True, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
    )
    op.create_index("files_page", "files", ["owner", "created_at", "id"])
    op.create_index("files_page_purpose", "files", ["owner", "purpose", "created_at", "id"])
    some = sa.text("expires_at IS NOT NULL")
    op.create_index(
        "files_expiring", "files", ["expires_at"], sqlite_where=some, postgresql_where=some
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text, primary_key=True, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("file_seconds", sa.Double),
    )
    op.create_index("uploads_expiring", "uploads", ["expires_at"])
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.Text, primary_key=True, nullable=False),
        sa.Column("upload_id", sa.Text, sa.ForeignKey("uploads.id"), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_index("upload_parts_upload", "upload_parts", ["upload_id"])
    op.create_index("upload_parts_owner", "upload_parts", ["owner"])
