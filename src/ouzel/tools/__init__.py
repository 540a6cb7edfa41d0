"""Tools that this server runs by itself: one file for each, with helpers of its own beside it.

A tool keeps `core.contracts.Tool`. It knows what it does and what the model is told of that;
it knows no engine, no HTTP and no database.
"""
