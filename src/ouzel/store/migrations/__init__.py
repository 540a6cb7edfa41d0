"""Alembic's folder: what brings a database from one version to the next."""
