"""The tables that migrations make, and the statements that run on them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import alembic.autogenerate
import alembic.config
import alembic.migration
import alembic.script
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import StaticPool

from ouzel.store.conversations_sql import ConversationStatements
from ouzel.store.migrate import SCRIPTS, migrate
from ouzel.store.runs_sql import RunStatements
from ouzel.store.schema import SCHEMA_VERSION, Statement, metadata
from ouzel.store.sqlite import SqliteFile

QMARK = sqlite.dialect(paramstyle="qmark")


@pytest.fixture
def database(tmp_path: Path) -> sqlite3.Connection:
    file = SqliteFile(tmp_path / "store.db")
    migrate(file)
    connection = file.connect()
    yield connection
    connection.close()


def test_the_migrations_end_at_the_version_that_opening_expects() -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(SCRIPTS))
    assert alembic.script.ScriptDirectory.from_config(config).get_heads() == [SCHEMA_VERSION]


def test_the_migrations_make_the_tables_that_the_statements_use(
    database: sqlite3.Connection,
) -> None:
    engine = sa.create_engine("sqlite://", creator=lambda: database, poolclass=StaticPool)
    with engine.connect() as connection:
        context = alembic.migration.MigrationContext.configure(
            connection, opts={"compare_type": True}
        )
        assert alembic.autogenerate.compare_metadata(context, metadata) == []
        indexes = sa.inspect(connection).get_indexes("runs")
    names = {"runs_live", "runs_page", "runs_age", "runs_choices", "runs_previous"}
    assert {index["name"] for index in indexes} == names


def every(statements: object) -> list[Statement]:
    """All statements of a set, those in tables of variants too."""
    found: list[Statement] = []
    for each in vars(statements).values():
        of_each = each.values() if isinstance(each, dict) else [each]
        found += [one for one in of_each if isinstance(one, Statement)]
    return found


@pytest.mark.parametrize("kind", [RunStatements, ConversationStatements])
@pytest.mark.parametrize(
    "dialect", [sqlite.dialect(paramstyle="qmark"), postgresql.dialect(paramstyle="format")]
)
def test_every_statement_compiles_with_places_for_all_its_values(
    dialect: sa.engine.Dialect, kind: type[RunStatements | ConversationStatements]
) -> None:
    statements = kind(dialect)
    mark = "?" if dialect.paramstyle == "qmark" else "%s"
    found = every(statements)
    assert set(statements.write_order) < set(found)
    for each in found:
        assert each.sql.count(mark) == len(each.names)


def test_a_dialect_whose_places_have_names_is_refused() -> None:
    with pytest.raises(TypeError, match="numbered places"):
        RunStatements(postgresql.dialect(paramstyle="pyformat"))


def plan(database: sqlite3.Connection, statement: Statement) -> str:
    values = dict.fromkeys(statement.names, 0)
    rows = database.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.row(**values))
    return "\n".join(row[3] for row in rows)


@pytest.mark.parametrize("kind", [RunStatements, ConversationStatements])
def test_no_statement_reads_a_whole_table_or_sorts(
    database: sqlite3.Connection, kind: type[RunStatements | ConversationStatements]
) -> None:
    statements = kind(QMARK)
    for statement in every(statements):
        if statement.sql.startswith("INSERT") and "SELECT" not in statement.sql:
            continue
        steps = plan(database, statement)
        assert "SEARCH" in steps, statement.sql
        for table in ("runs", "events", "conversations", "conversation_items"):
            assert f"SCAN {table}" not in steps, statement.sql
        # A chain is in memory anyway, and runs that are live are few.
        if statement not in (
            getattr(statements, "select_chain", None),
            getattr(statements, "select_live", None),
            getattr(statements, "select_choices", None),
        ):
            assert "TEMP B-TREE" not in steps, statement.sql


def test_lists_of_runs_walk_along_their_index(database: sqlite3.Connection) -> None:
    for statement in RunStatements(QMARK).select_pages.values():
        assert "USING INDEX runs_page (owner=? AND protocol=?" in plan(database, statement)


def test_deleting_deletes_what_belongs_to_it(database: sqlite3.Connection) -> None:
    runs, conversations = RunStatements(QMARK), ConversationStatements(QMARK)

    def do(statement: Statement, **values: object) -> int:
        return database.execute(statement.sql, statement.row(**values)).rowcount

    run = {"id": "r", "owner": "o", "created_at": 1.0, "status": "completed", "model": "m"}
    run |= {"protocol": "responses", "previous_id": None, "choice_of": None, "body": b"{}"}
    do(runs.insert_run, **run)
    do(runs.insert_events, run_id="r", position=0, count=1, body=b"[]")
    do(runs.delete_run, run="r", by="o")
    assert database.execute("SELECT count(*) FROM events").fetchone() == (0,)
    do(conversations.insert_conversation, id="c", owner="o", created_at=1.0, metadata=b"{}")
    item = {"conversation": "c", "item": "msg_1", "body": b"{}"}
    assert do(conversations.insert_item, by="somebody else", **item) == 0
    assert do(conversations.insert_item, by="o", **item) == 1
    assert do(conversations.insert_item, by="o", **item) == 0
    do(conversations.delete_conversation, conversation="c", by="o")
    assert database.execute("SELECT count(*) FROM conversation_items").fetchone() == (0,)
