"""One file for each step, never changed once released. The last one is SCHEMA_VERSION."""
