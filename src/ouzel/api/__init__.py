"""The only room that knows OpenAI's JSON.

`app` holds the routes, `read_*` turn JSON into a `Request`, `write_*` turn events and runs into
JSON and server-sent events. Readers and writers are pure.
"""
