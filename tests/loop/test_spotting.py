from __future__ import annotations

import json
import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouzel.loop.spotting import Spotted, Spotter

NAMES = ("get_weather", "search", "python")
OSLO = '{"city":"Oslo"}'
CALL = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
WEATHER = Spotted("get_weather", OSLO)


def spot(*pieces: str, names: tuple[str, ...] = NAMES) -> tuple[str, list[Spotted]]:
    spotter = Spotter(names)
    text = "".join([*(spotter.feed(piece) for piece in pieces), spotter.end()])
    return text, [Spotted(each.name, each.arguments) for each in spotter.calls]


def cut(text: str, places: list[int]) -> list[str]:
    at = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(at)]


FOUND = [
    (CALL, "", [WEATHER]),
    (f"  {CALL}", "  ", [WEATHER]),
    (f"I will look.\n{CALL}", "I will look.\n", [WEATHER]),
    (f"```json\n{CALL}\n```", "", [WEATHER]),
    (f"```\n{CALL}\n```", "", [WEATHER]),
    (f"```tool_call\n{CALL}\n```", "", [WEATHER]),
    (f"<tool_call>\n{CALL}\n</tool_call>", "", [WEATHER]),
    (f"Well, <tool_call>{CALL}</tool_call>", "Well, ", [WEATHER]),
    (f"<tool_call>\n{CALL}\n</tool_call>\n" * 2, "", [WEATHER, WEATHER]),
    (f"<tool_call>{CALL}", "", [WEATHER]),
    (f"<function=get_weather>{OSLO}</function>", "", [WEATHER]),
    ("<function=search></function>", "", [Spotted("search", "{}")]),
    (f"[{CALL}, {CALL}]", "", [WEATHER, WEATHER]),
    (f"{CALL}\n{CALL}", "", [WEATHER, WEATHER]),
    (f'{{"function": {CALL}}}', "", [WEATHER]),
    (f'{{"type": "function", "function": {CALL}}}', "", [WEATHER]),
    (f'{{"tool": "get_weather", "args": {OSLO}}}', "", [WEATHER]),
    (f'{{"action": "get_weather", "action_input": {OSLO}}}', "", [WEATHER]),
    (f'{{"get_weather": {OSLO}}}', "", [WEATHER]),
    (f'{{"arguments": {OSLO}, "name": "get_weather"}}', "", [WEATHER]),
    ('{"name": "search"}', "", [Spotted("search", "{}")]),
    ('{"name": "python", "arguments": "print(1)"}', "", [Spotted("python", "print(1)")]),
    (json.dumps(json.loads(CALL), indent=4), "", [WEATHER]),
]

TEXTS = [
    "Just words.",
    "",
    "A sentence with {braces} and `code`.",
    f"In the middle {CALL} of a sentence.",
    '{"name": "Ada", "arguments": "none"}',
    '{"name": "delete_everything", "arguments": {}}',
    '<tool_call>{"name": "delete_everything"}</tool_call>',
    "<function=delete_everything>{}</function>",
    '{"city": "Oslo", "weather": "sunny", "temperature": 20}',
    '[\n  {"city": "Oslo"},\n  {"city": "Rome"}\n]',
    "[1, 2, 3]",
    "[link](http://example.com)",
    '```json\n{"city": "Oslo", "temperature": 20}\n```',
    "```python\nprint({'a': 1})\n```\n",
    "```\nplain\n```",
    "{not json at all",
    "{",
    "```",
    "<",
    "a <b",
    "x < y and z",
    "<tool",
    "<tool_call>",
    "`\nsingle\n`",
    "<\nless\n>",
]


@pytest.mark.parametrize(("text", "said", "calls"), FOUND)
def test_calls_are_found_and_kept_out_of_the_text(text, said, calls):
    left, found = spot(text)
    assert (left.strip("\n"), found) == (said.strip("\n"), calls)


@pytest.mark.parametrize(("text", "said", "calls"), FOUND)
def test_calls_in_single_characters_are_found_too(text, said, calls):
    left, found = spot(*text)
    assert (left.strip("\n"), found) == (said.strip("\n"), calls)


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_call_stays_text(text):
    assert spot(text) == (text, [])
    assert spot(*text) == (text, [])


@pytest.mark.parametrize("language", ["js", "javascript", "python", "bash"])
def test_code_fences_stay_text(language):
    text = f"Send this:\n```{language}\n{CALL}\n```\nDone."
    assert spot(text) == (text, [])
    assert spot(*text) == (text, [])


def test_the_end_of_a_code_block_does_not_open_a_fence_around_a_call():
    text = f"```python\nx = 1\n```\n\n{CALL}"
    for pieces in ([text], list(text)):
        said, calls = spot(*pieces)
        assert said.count("```") == 2
        assert calls == [WEATHER]


def test_what_follows_a_call_is_text_again():
    said, calls = spot(f"{CALL}\nThat was it.")
    assert (said.strip(), calls) == ("That was it.", [WEATHER])


def test_text_goes_out_at_once():
    spotter = Spotter(NAMES)
    assert spotter.feed("Hello ") == "Hello "
    assert spotter.feed("there.\n") == "there.\n"
    assert spotter.feed("And so on") == "And so on"


@pytest.mark.parametrize("start", ["[\n", "`\n", "<\n", "[1,", "{ 1", "{}\n", "<toolbox>"])
def test_what_cannot_open_a_call_goes_out_at_once(start):
    spotter = Spotter(NAMES)
    more = "and then a text that is longer than any key of an object could be\nover two lines "
    assert spotter.feed(start) + spotter.feed(more) == f"{start}{more}"


def test_data_without_a_name_goes_out_soon():
    spotter = Spotter(NAMES)
    assert spotter.feed('{"cities": ["Oslo", "Rome", "Paris", "Berlin", "Madrid",')


@pytest.mark.parametrize("before", ["```", "```json", "<tool_call>x", "<function=f>x"])
def test_white_space_takes_time_in_proportion(before):
    spotter = Spotter(["f"])
    began = time.process_time()
    said = spotter.feed(before + 9_000 * " " + "\n" + 9_000 * " ")
    said += spotter.feed("y</tool_call></function>```") + spotter.end()
    assert time.process_time() - began < 1
    assert spotter.calls == [] or before == "<function=f>x"
    assert "y" in said or spotter.calls


def test_an_endless_candidate_is_let_go():
    text = '{"name": "search", "arguments": {"q": "' + "x" * 30_000
    assert spot(*cut(text, list(range(0, 30_000, 997)))) == (text, [])


@given(st.sampled_from([case[0] for case in FOUND] + TEXTS), st.lists(st.integers(0, 300)))
def test_cuts_do_not_matter(text, places):
    assert spot(*cut(text, places)) == spot(text)


PARTS = st.lists(
    st.sampled_from(
        [
            CALL,
            "<tool_call>",
            "</tool_call>",
            "```",
            "```json\n",
            "\n",
            " ",
            "{",
            "}",
            "[",
            "]",
            "<",
            "<function=search>",
            "</function>",
            "words",
            '"name"',
            '{"name": "nobody"}',
        ]
    ),
    max_size=10,
).map("".join)


@given(PARTS, st.lists(st.integers(0, 400), max_size=10))
def test_nothing_is_lost_and_nothing_comes_twice(text, places):
    spotter = Spotter(NAMES)
    said = "".join([*(spotter.feed(piece) for piece in cut(text, places)), spotter.end()])
    taken = "".join(call.raw for call in spotter.calls)
    assert Counter(said + taken) == Counter(text)


@given(st.text(max_size=80), st.lists(st.integers(0, 99)))
def test_any_text_that_names_no_tool_stays_as_it_is(text, places):
    if any(name in text for name in NAMES):
        return
    assert spot(*cut(text, places)) == (text, [])
