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

from ouzel.store.migrate import SCRIPTS, migrate
from ouzel.store.schema import SCHEMA_VERSION, Statement, Statements, metadata
from ouzel.store.sqlite import SqliteFile


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
    assert [index["name"] for index in indexes] == ["runs_live"]


@pytest.mark.parametrize(
    "dialect", [sqlite.dialect(paramstyle="qmark"), postgresql.dialect(paramstyle="format")]
)
def test_every_statement_compiles_with_places_for_all_its_values(
    dialect: sa.engine.Dialect,
) -> None:
    statements = Statements(dialect)
    mark = "?" if dialect.paramstyle == "qmark" else "%s"
    found = [each for each in vars(statements).values() if isinstance(each, Statement)]
    assert set(statements.write_order) < set(found)
    for each in found:
        assert each.sql.count(mark) == len(each.names)


def test_a_dialect_whose_places_have_names_is_refused() -> None:
    with pytest.raises(TypeError, match="numbered places"):
        Statements(postgresql.dialect(paramstyle="pyformat"))


def plan(database: sqlite3.Connection, statement: Statement) -> str:
    values = dict.fromkeys(statement.names, 0)
    rows = database.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.row(**values))
    return "\n".join(row[3] for row in rows)


def test_no_statement_reads_a_whole_table(database: sqlite3.Connection) -> None:
    statements = Statements(sqlite.dialect(paramstyle="qmark"))
    for statement in (
        statements.select_run,
        statements.select_events,
        statements.select_chain,
        statements.update_run,
        statements.delete_run,
        statements.mark_run,
        statements.select_live,
    ):
        steps = plan(database, statement)
        assert "SEARCH" in steps
        assert "SCAN runs" not in steps
        assert "SCAN events" not in steps


def test_deleting_a_run_deletes_its_events(database: sqlite3.Connection) -> None:
    statements = Statements(sqlite.dialect(paramstyle="qmark"))
    run = {"id": "r", "owner": "o", "created_at": 1.0, "status": "completed", "model": "m"}
    run |= {"protocol": "responses", "previous_id": None, "body": b"{}"}
    database.execute(statements.insert_run.sql, statements.insert_run.row(**run))
    event = {"run_id": "r", "position": 0, "count": 1, "body": b"[]"}
    database.execute(statements.insert_events.sql, statements.insert_events.row(**event))
    database.execute(statements.delete_run.sql, statements.delete_run.row(run="r", by="o"))
    assert database.execute("SELECT count(*) FROM events").fetchone() == (0,)
