"""Every statement on files, uploads and parts, in SQLAlchemy Core like those of `schema.py`.

This file does not know connections, threads or where bytes lie.
"""

from __future__ import annotations

import itertools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from ouzel.store.schema import Statement, compiled, files, given, upload_parts, uploads

_PENDING = uploads.c.status == sa.literal_column("'pending'")


class FileStatements:
    """All statements on files for one dialect.

    Args:
        dialect: one with positional placeholders.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        my_file = sa.and_(files.c.id == sa.bindparam("file"), files.c.owner == sa.bindparam("by"))
        my_upload = sa.and_(
            uploads.c.id == sa.bindparam("upload"), uploads.c.owner == sa.bindparam("by")
        )
        my_part = sa.and_(
            upload_parts.c.id == sa.bindparam("part"), upload_parts.c.owner == sa.bindparam("by")
        )
        self.insert_file = self._compile(sa.insert(files))
        self.select_file = self._compile(sa.select(files).where(my_file, self._alive()))
        self.delete_file = self._compile(sa.delete(files).where(my_file))
        self.select_pages = {
            each: self._compile(self._page(*each))
            for each in itertools.product((False, True), repeat=3)
        }
        """By: of one purpose, after a file, newest first."""
        self.select_expired = self._compile(
            sa.select(files)
            .where(files.c.expires_at <= sa.bindparam("now"))
            .limit(sa.bindparam("most"))
            .offset(sa.literal_column("0"))
        )
        self.insert_upload = self._compile(sa.insert(uploads))
        self.select_upload = self._compile(sa.select(uploads).where(my_upload))
        self.end_upload = self._compile(
            sa.update(uploads).where(my_upload, _PENDING).values(status=sa.bindparam("new_status"))
        )
        self.complete_upload = self._compile(
            sa.update(uploads)
            .where(my_upload, _PENDING, uploads.c.expires_at > sa.bindparam("now"))
            .values(status=sa.literal_column("'completed'"))
        )
        self.delete_upload = self._compile(sa.delete(uploads).where(my_upload))
        self.select_overdue = self._compile(self._overdue(_PENDING))
        self.select_forgettable = self._compile(self._overdue(sa.not_(_PENDING)))
        self.insert_part = self._compile(self._insert_part(my_upload))
        self.select_parts = self._compile(
            sa.select(upload_parts.c.id, upload_parts.c.size).where(
                upload_parts.c.upload_id == sa.bindparam("upload")
            )
        )
        self.delete_part = self._compile(sa.delete(upload_parts).where(my_part))
        self.select_bytes = self._compile(
            sa.union_all(
                sa.select(files.c.size).where(files.c.id == sa.bindparam("file")),
                sa.select(upload_parts.c.size).where(upload_parts.c.id == sa.bindparam("part")),
            )
        )
        """The size of what has a row under this id, be it a file or a part."""
        self.select_used = self._compile(sa.select(self._used(files) + self._used(upload_parts)))

    @property
    def write_order(self) -> tuple[Statement, ...]:
        """Statements that write, in an order that keeps every reference whole within a batch."""
        return (
            self.insert_upload,
            self.insert_part,
            self.insert_file,
            self.end_upload,
            self.complete_upload,
            self.delete_part,
            self.delete_file,
            self.delete_upload,
        )

    def _compile(self, statement: sa.sql.expression.ClauseElement) -> Statement:
        return compiled(statement, self._dialect)

    @staticmethod
    def _alive() -> sa.ColumnElement[bool]:
        expires = files.c.expires_at
        return sa.or_(expires.is_(None), expires > sa.bindparam("now"))

    @classmethod
    def _page(cls, of_purpose: bool, after: bool, newest: bool) -> sa.Select[Any]:
        asked = sa.select(files).where(files.c.owner == sa.bindparam("by"), cls._alive())
        if of_purpose:
            asked = asked.where(files.c.purpose == sa.bindparam("for"))
        if after:
            at = sa.tuple_(files.c.created_at, files.c.id)
            mark = sa.tuple_(
                sa.bindparam("after_time", type_=sa.Double), sa.bindparam("after_id", type_=sa.Text)
            )
            asked = asked.where(at < mark if newest else at > mark)
        order = (files.c.created_at, files.c.id)
        asked = asked.order_by(*(each.desc() for each in order) if newest else order)
        return asked.limit(sa.bindparam("most")).offset(sa.literal_column("0"))

    @staticmethod
    def _overdue(state: sa.ColumnElement[bool]) -> sa.Select[Any]:
        return (
            sa.select(uploads.c.id, uploads.c.owner)
            .where(uploads.c.expires_at <= sa.bindparam("now"), state)
            .limit(sa.bindparam("most"))
            .offset(sa.literal_column("0"))
        )

    @staticmethod
    def _insert_part(my_upload: sa.ColumnElement[bool]) -> sa.Insert:
        """A part, if its upload still takes one; else nothing."""
        before = (
            sa.select(sa.func.count())
            .select_from(upload_parts)
            .where(upload_parts.c.upload_id == uploads.c.id)
            .scalar_subquery()
        )
        row = sa.select(
            given("id", sa.Text),
            uploads.c.id,
            uploads.c.owner,
            given("size", sa.BigInteger),
            given("created_at", sa.Double),
        ).where(
            my_upload,
            _PENDING,
            uploads.c.expires_at > sa.bindparam("now"),
            before < sa.bindparam("parts"),
        )
        columns = ("id", "upload_id", "owner", "size", "created_at")
        return sa.insert(upload_parts).from_select(columns, row)

    @staticmethod
    def _used(table: sa.Table) -> sa.ColumnElement[int]:
        total = sa.func.coalesce(sa.func.sum(table.c.size), sa.literal_column("0"))
        return sa.select(total).where(table.c.owner == sa.bindparam("by")).scalar_subquery()
