"""Who turns context into tokens.

Each engine keeps `core.contracts.Engine`: `upstream` speaks to any server that streams Chat
Completions, `local` runs llama.cpp in a process of its own, `scripted` plays a script. None of
them knows of tools being run, of storage, or of our HTTP clients.
"""
