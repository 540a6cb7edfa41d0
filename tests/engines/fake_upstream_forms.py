"""What the fake server can be made to say: forced words, openings, calls, thinking, in the fields
that each dialect has for it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

GRAMMAR = {"llama": "grammar", "old_llama": "grammar", "vllm": "structured_outputs"}
GRAMMAR |= {"sglang": "ebnf"}
ASKED_TO_GO_ON = {"vllm", "sglang"}
"""They continue an assistant's message only when asked to."""


@dataclass
class Skills:
    """What this server and its model can; tests change it."""

    can: set[str]
    thinks: str = "no"
    thoughts: list[str] = field(default_factory=lambda: ["Hm", ",", " well"])
    efforts: set[str] = field(default_factory=lambda: {"low", "medium", "high"})
    switch: bool = False
    counts_as_it_goes: bool = True
    takes_thinking: bool = True


def skills_of(dialect: str) -> Skills:
    can = {"json_schema", "opening", "tools"}
    if dialect in GRAMMAR:
        can.add("grammar")
    if dialect == "llama":
        can.add("llguidance")
    return Skills({"grammar", "opening"} if dialect == "old_llama" else can)


@dataclass
class Said:
    words: list[str]
    thoughts: list[str]
    call: dict[str, str] | None = None


def speak(skills: Skills, dialect: str, body: dict[str, Any], plain: list[str]) -> Said:
    """What is said to this request; `plain` where nothing forces anything."""
    words = list(plain)
    grammar = body.get(GRAMMAR.get(dialect, ""))
    if isinstance(grammar, dict):
        grammar = grammar.get("grammar")
    kind = "llguidance" if grammar and grammar.startswith("%llguidance") else "grammar"
    if grammar and kind in skills.can:
        words = re.findall(r'"([^"]*)"', grammar)
    form = body.get("response_format")
    if form and "json_schema" in skills.can:
        schema = form.get("json_schema", {}).get("schema", {})
        named = {k: p["enum"][0] for k, p in schema.get("properties", {}).items()}
        words = [json.dumps(named, separators=(",", ":"))]
    last = body["messages"][-1]
    asked = body.get("continue_final_message", False)
    goes_on = "opening" in skills.can and asked == (dialect in ASKED_TO_GO_ON)
    if last["role"] == "assistant" and goes_on:
        words = ["day", ",", " and"] if last["content"].endswith("Wednes") else [" and", " on"]
    call = None
    if body.get("tools") and body.get("tool_choice") == "required" and "tools" in skills.can:
        name = body["tools"][0]["function"]["name"]
        words, call = [], {"name": name, "arguments": '{"word": "zebra"}'}
    off = skills.switch and body.get("chat_template_kwargs", {}).get("enable_thinking") is False
    begun = last["role"] == "assistant" and goes_on
    thoughts = [] if skills.thinks == "no" or off or begun else list(skills.thoughts)
    if thoughts and skills.thinks == "tags":
        return Said(["<think>", *thoughts, "</think>", *words], [], call)
    if thoughts and skills.thinks == "open":
        return Said([*thoughts, "</think>", *words], [], call)
    return Said(words, thoughts, call)


def refuses(skills: Skills, body: dict[str, Any]) -> str | None:
    """Why a request is refused: a model without thinking is asked for none (as Ollama does)."""
    effort = body.get("reasoning_effort")
    if effort is not None and (skills.thinks == "no" or effort not in skills.efforts):
        return f"reasoning_effort {effort} is not supported"
    if "images" not in skills.can and isinstance(body["messages"][0]["content"], list):
        return "this model takes no images"
    if not skills.takes_thinking and any(
        "reasoning" in name for message in body["messages"] for name in message
    ):
        return "thinking must not be given back"
    return None


def counted_so_far(dialect: str, body: dict[str, Any], read: int, number: int) -> dict[str, Any]:
    """Counts in the middle, where this dialect has them and was asked."""
    if dialect == "llama" and body.get("timings_per_token"):
        return {"timings": timings(read, number)}
    options = body.get("stream_options") or {}
    if dialect in ("vllm", "sglang") and options.get("continuous_usage_stats"):
        return {"usage": {"prompt_tokens": read, "completion_tokens": number}}
    return {}


def timings(read: int, number: int) -> dict[str, Any]:
    """As llama-server times: the first token belongs to the prompt. 100 and 20 a second."""
    return {
        "cache_n": 1,
        "prompt_n": read - 1,
        "prompt_ms": (read - 1) * 10.0,
        "predicted_n": number,
        "predicted_ms": (number - 1) * 50.0,
    }
