"""What counts as valid JSON and as a whole answer."""

from __future__ import annotations

import pytest
from bench.checked import cut_off, json_fault

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}, "at": {"format": "date"}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("text", ['{"n": 1}', ' {"n":2, "at": "2027-05-03"}\n'])
def test_valid(text: str) -> None:
    assert json_fault(text, SCHEMA) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ('{"n": 1', "no JSON"),
        ('```json\n{"n": 1}\n```', "no JSON"),
        ('{"n": 1} and more', "no JSON"),
        ('{"n": NaN}', "NaN is no JSON"),
        ('{"n": 1, "n": 2}', "twice"),
        ('{"n": 0}', "minimum"),
        ('{"n": "1"}', "integer"),
        ('{"n": 1, "m": 1}', "m"),
        ('{"n": 1, "at": "tomorrow"}', "date"),
        ("[]", "object"),
    ],
)
def test_not_valid(text: str, why: str) -> None:
    fault = json_fault(text, SCHEMA)
    assert fault is not None
    assert why in fault


@pytest.mark.parametrize(
    "text",
    [
        "It is so.",
        'She said: "Go!"',
        "**Done.**",
        "408",
        "Ulaanbaatar",
        "Here:\n\n```python\nprint(1)\n```",
        "Things to pack for a week in the hills\n1. A tent\n2. Good boots and warm socks",
        "So we see that it is\n\\[ x = 4 \\]",
        "| a | b |\n|---|---|\n| one of them | the other one |",
        "Merci beaucoup pour votre aide… »",
        "I look forward to hearing from you about it soon.\n\nSincerely,\n\n[Your Name]",
    ],
)
def test_whole(text: str) -> None:
    assert cut_off(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "Here is the program that you asked me for:",
        "Here:\n```python\nprint(",
        "Here:\n```python\nprint(1)\n```\nand\n```\nmore",
        "Once upon a time there was a clockmaker who",
        "Thanks for all,\nI would like to ask about the heater that",
        "First we look at all of the numbers, and then we find that\n\n### Step 2",
    ],
)
def test_cut_off(text: str) -> None:
    assert cut_off(text) is not None
