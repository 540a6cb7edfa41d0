"""Short ways to make the engine double for a test."""

from __future__ import annotations

from ouzel.engines.scripted import Reply, Say, Script, ScriptedEngine, Step


def scripted(*steps: Step, window: int = 8192) -> ScriptedEngine:
    """An engine that always plays these steps; without any it says what it was told."""
    reply = Reply(steps or (Say("You said: {input}"),))
    return ScriptedEngine(Script((reply,), context_window=window))
