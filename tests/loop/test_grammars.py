from __future__ import annotations

import re
import time

import pytest
from gbnf_reader import Gbnf
from hypothesis import given, settings
from hypothesis import strategies as st

from ouzel.core.errors import RequestError
from ouzel.core.request import Grammar
from ouzel.loop import grammars
from ouzel.loop.grammars import BROKEN, Compiled, json_object, one_of

SUM = """
start: expr
// left recursion, as people write it
expr: expr ("+" | "-") term -> sum | term
?term: factor (("*" | "/") factor)*
factor: NUMBER | "(" expr ")" | "-"? NAME~1..2 ["!"]
NAME: "x".."z" | "pi"i | /[A-F]{2}\\/?/i
%import common.NUMBER
%import common (WS_INLINE, INT)
%ignore WS_INLINE
"""


def _regex(pattern: str) -> Compiled:
    return grammars.compile(Grammar("regex", pattern))


def _lark(text: str) -> Compiled:
    return grammars.compile(Grammar("lark", text))


def _gbnf(compiled: Compiled) -> Gbnf:
    assert compiled.gbnf is not None, compiled.reason
    return Gbnf(compiled.gbnf)


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        ("^[a-c]{3}$", ["abc"], ["ab", "abcd", "abd", ""]),
        ("a/b\n", ["a/b\n"], ["a/b"]),
        ("a\\/b", ["a/b"], ["a\\/b"]),
        ("(a*)*b", ["b", "aab"], ["a"]),
        ("(a?b?)+", ["", "abba"], ["c"]),
        ("\\d+(\\.\\d{1,2})?", ["1", "12.34"], [".5", "1.234"]),
        ("(?i)abc[^k]", ["aBcx"], ["abck", "abcK"]),
        ("(?i:ab)c", ["ABc"], ["ABC"]),
        ("(?P<year>\\d{4})-(?<month>\\d\\d)", ["2024-01"], ["2024-1"]),
        ("^(cat|dog)$|^fish$", ["cat", "fish"], ["catfish"]),
        ("[]a^\\-\\]]+", ["]a^-"], ["b"]),
        ("[^\\d\\s]", ["x"], ["1", " "]),
        ("[[:upper:]_]+?", ["A_B"], ["a"]),
        (".", ["é", "😀"], ["\n"]),
        ("(?s).", ["\n"], ["", "ab"]),
        ("\\x41\\u00e9\\U0001F600\\x{42}", ["Aé😀B"], ["A"]),
        ('"\\\\[ \\]]', ['"\\ ', '"\\]'], ['"\\']),
        ("a{2,}b{0}c{1,1}", ["aac", "aaaac"], ["ac", "aabc"]),
        ("a b  c", ["a b  c"], ["abc"]),
    ],
)
def test_regular_expressions_mean_the_same_in_both(
    pattern: str, right: list[str], wrong: list[str]
) -> None:
    compiled = _regex(pattern)
    second = _gbnf(compiled)
    for text in right:
        assert compiled.check(text) is None
        assert second.matches(text)
    for text in wrong:
        assert compiled.check(text) is not None
        assert not second.matches(text)


ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "é",
        "\\.",
        "\\d",
        "\\w",
        "\\W",
        "\\s",
        ".",
        "[ab]",
        "[^a]",
        "[a-c0-9]",
        "[\\w-]",
        "\\n",
    ]
)
TIMES = st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "*?"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("({}){}".format, inner, TIMES)
        | st.builds("{}{}".format, inner, inner)
        | st.builds("({}|{})".format, inner, inner)
        | st.builds("(?:|{})".format, inner)
    ),
    max_leaves=7,
)


def test_an_expression_that_breaks_the_library_is_refused() -> None:
    with pytest.raises(RequestError, match=BROKEN) as refused:
        _regex(r"((é|\w)|(?:|\w))")
    assert refused.value.code == "invalid_grammar"


@settings(max_examples=150, deadline=None)
@given(
    pattern=PATTERNS,
    texts=st.lists(st.text(alphabet="abcé.0 \n-", max_size=7), max_size=12),
    data=st.data(),
)
def test_random_expressions_agree_with_python(
    pattern: str, texts: list[str], data: st.DataObject
) -> None:
    try:
        compiled = _regex(pattern)
    except RequestError:
        with pytest.raises(RequestError, match=BROKEN):  # the library panics on a few
            _regex(pattern)
        return
    second = _gbnf(compiled)
    # What fits by chance is rare: add some that does.
    texts.append(data.draw(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)))
    for text in texts:
        if len(text) > 40:
            continue
        right = re.compile(pattern, re.ASCII).fullmatch(text) is not None
        assert second.matches(text) == right
        # Beyond ASCII, \w and its like are wider in Rust, and so they are when texts are checked.
        if text.isascii():
            assert (compiled.check(text) is None) == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("1 + 2*(3-4)", True),
        ("12", True),
        ("x + -piFA !", True),
        ("Ab/", True),
        ("1.5e3", True),
        ("1++2", False),
        ("(1", False),
        ("", False),
        ("xxx", False),
        ("1 + 2\n", False),
    ],
)
def test_lark_grammars_mean_the_same_in_both(text: str, right: bool) -> None:
    compiled = _lark(SUM)
    assert (compiled.check(text) is None) == right
    assert _gbnf(compiled).matches(text) == right


def test_rules_over_several_lines_and_odd_characters() -> None:
    compiled = _lark('start: "\\n" "\\u00e9"\n  | _other  // this one\n\n_other: "😀 \\"[x]\\""\n')
    for text in ("\né", '😀 "[x]"'):
        assert compiled.check(text) is None
        assert _gbnf(compiled).matches(text)


def test_a_sentence_says_where_a_text_leaves_the_grammar() -> None:
    compiled = _regex("^[a-c]{3}$")
    assert compiled.check("abd") == (
        "The tool's grammar does not allow 'd' at character 2 after 'ab'."
    )
    assert compiled.check("ab") == "The input ends too early for the tool's grammar, after 'ab'."
    assert "'é' at character 1" in str(compiled.check("aé"))


@pytest.mark.parametrize(
    ("syntax", "definition", "word"),
    [
        ("regex", "(?=a)b", "look-ahead"),
        ("regex", "(a)\\1", "backreferences"),
        ("regex", "(", "unclosed group"),
        ("regex", "a{,3}", "repetition"),
        ("regex", "", "empty"),
        ("regex", "a\\", "backslash"),
        ("regex", "(" * 5000 + "a" + ")" * 5000, "nested"),
        ("regex", "a" * 60_000, "characters"),
        ("regex", "\ud800", "surrogate"),
        ("lark", 'start: foo\nfoo: "a" bar\n', 'line 2, column 6: unknown name: "bar"'),
        ("lark", 'start: "a" /(?=b)/', "look-ahead"),
        ("lark", "", "no start rule"),
        ("lark", 'start: "a', "line 1"),
        ("lark", '%llguidance {}\nstart: "x"', "%llguidance"),
        ("lark", "start: " + "(" * 5000 + '"a"' + ")" * 5000, "nested"),
        ("lark", "start: <|im_end|>", "special tokens"),
    ],
)
def test_what_cannot_be_read_is_named(syntax: str, definition: str, word: str) -> None:
    with pytest.raises(RequestError) as caught:
        grammars.compile(Grammar(syntax, definition))
    assert caught.value.code == "invalid_grammar"
    assert word in caught.value.message
    assert len(caught.value.message) < 600
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("syntax", "definition", "text"),
    [
        ("regex", "\\p{L}+", "é"),
        ("regex", "\\bword\\b", ""),
        ("regex", "a{2000}", "a" * 2000),
        ("regex", "((a{100}){100}){100}", ""),
        ("regex", "[a-z&&[^b]]", "c"),
        ("lark", 'start: a\na: b\nb: a "x" | "y"', "yxx"),
        ("lark", 'start: (a | "b")*\na: "x"?', "xbx"),
        ("lark", 'start: %json {"type": "object"}', "{}"),
    ],
)
def test_what_gbnf_cannot_say_is_still_checked(syntax: str, definition: str, text: str) -> None:
    try:
        compiled = grammars.compile(Grammar(syntax, definition))
    except RequestError:
        assert definition == "\\bword\\b"
        return
    assert compiled.gbnf is None
    assert compiled.reason
    if text:
        assert compiled.check(text) is None


@pytest.mark.parametrize(
    ("syntax", "definition", "text"),
    [
        ("regex", "(a+)+b", "a" * 100_000),
        ("regex", "(a|b)*a(a|b){18}c", "ab" * 5000),
        ("regex", "(.*)*x", "y" * 50_000),
        ("lark", 'start: s\ns: s s | "a" | \n', "a" * 3000),
        ("lark", 'start: s\ns: "a" s s | "a"\n', "a" * 3000),
        ("lark", "start: " + '\\"' * 20_000, ""),
        ("lark", "start: " + '"' * 20_000 + "/" * 20_000, ""),
        ("regex", "[" * 20_000, ""),
        ("lark", "start: (A | B | A B)*\nA: /a+/\nB: /[ab]+/", "ab" * 20_000),
    ],
)
def test_hostile_grammars_and_texts_take_bounded_time(
    syntax: str, definition: str, text: str
) -> None:
    began = time.monotonic()
    try:
        grammars.compile(Grammar(syntax, definition)).check(text)
    except RequestError:
        assert not text
    assert time.monotonic() - began < 20


@settings(max_examples=150, deadline=None)
@given(
    syntax=st.sampled_from(["lark", "regex"]),
    definition=st.text() | st.text(alphabet='start:a|()[]{}*+?\\/"^$.~%1,\n -'),
    text=st.text(max_size=20),
)
def test_any_definition_is_read_or_refused(syntax: str, definition: str, text: str) -> None:
    try:
        compiled = grammars.compile(Grammar(syntax, definition))
    except RequestError:
        return
    compiled.check(text)
    if compiled.gbnf is not None:
        Gbnf(compiled.gbnf)


def test_one_of_is_exactly_one_of() -> None:
    names = ["get_weather", 'a"b\\c', "é-[x]", "two words", "get_weather"]
    grammar = Gbnf(one_of(names))
    assert all(grammar.matches(name) for name in names)
    assert not grammar.matches("get_weathe")
    assert not grammar.matches("")
    for empty in ([], [""]):
        with pytest.raises(ValueError, match="choose"):
            one_of(empty)


def test_any_json_object_fits_the_objects_grammar() -> None:
    grammar = Gbnf(json_object())
    for text in ("{}", '{"a": [1, -2.5e3, "x\\n\\u00e9", null, true], "b": {"c": {}}}'):
        assert grammar.matches(text)
    for text in ("[]", '{"a"}', '{"a": 01}', '{"a": 1,}', "{", '{"a":     1}'):
        assert not grammar.matches(text)
