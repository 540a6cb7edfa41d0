"""Whatever an engine says, a run keeps its promises."""

from __future__ import annotations

from hypothesis import event, given, settings
from hypothesis import strategies as st
from loop_kit import Played, ask, play

from hosted_tool import ConvertLength
from ouzel.core.errors import OuzelError
from ouzel.core.request import CustomTool, Format, FunctionTool, Grammar, HostedTool, ToolChoice
from ouzel.engines.scripted import Call, Die, Fail, Reply, Say, Script, Stop, Think
from ouzel.loop.schemas import schema
from ouzel.loop.toolbox import open_toolbox

CITY = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'
JSON = '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'
TOOLS = (
    FunctionTool("get_weather", "", CITY),
    CustomTool("number", grammar=Grammar("regex", "[0-9]+")),
    HostedTool("convert_length"),
)
WORDS = [
    "word ",
    "end. ",
    "\n",
    "<think>",
    "</think>",
    "```json\n",
    "```",
    "<tool_call>",
    "</tool_call>",
    '{"name": "get_weather", "arguments": {"city": "Oslo"}}',
    '{"name": "get_weather", "arguments": {}}',
    '{"city": "Oslo"}',
    '{"n": 1}',
    " get_weather",
    " answer",
    " number",
    "42",
    "{",
    '{"value":2,"unit":"km","to":"m"}',
    '{"value":2,"unit":"parsec","to":"m"}',
]
TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map("".join)
STEP = st.one_of(
    TEXT.map(Say),
    TEXT.map(Say),
    TEXT.map(Think),
    st.builds(
        Call,
        st.sampled_from(["get_weather", "number", "convert_length", "nobody"]),
        st.sampled_from(WORDS[9:]),
    ),
    st.sampled_from([Stop("stop"), Stop("length"), Stop("filter"), Die("gone"), Fail("no", 400)]),
)
REPLY = st.builds(
    Reply,
    st.lists(STEP, max_size=4).map(tuple),
    opening=st.sampled_from(["", "", "^Action:$", "answer\n$", "^<think>"]),
    times=st.sampled_from([None, 1, 2]),
)
SCRIPT = st.builds(
    Script,
    st.lists(REPLY, max_size=5).map(lambda found: (*found, Reply((Say("Well."),)))),
    context_window=st.just(20_000),
    thinks=st.sampled_from(["no", "channel", "tags", "open"]),
    tool_style=st.sampled_from(["native", "guided"]),
)
REQUEST = st.builds(
    ask,
    st.sampled_from(["hello", "What is 3 times 4?"]),
    tools=st.sampled_from([(), TOOLS[:1], TOOLS]),
    tool_choice=st.sampled_from([ToolChoice(), ToolChoice("none")]),
    parallel_tool_calls=st.booleans(),
    max_tool_calls=st.sampled_from([None, 0, 1]),
    max_output_tokens=st.sampled_from([None, 1, 5, 40]),
    effort=st.sampled_from([None, "none", "low", "high"]),
    summary=st.sampled_from([None, "auto"]),
    format=st.sampled_from([Format(), Format(), Format("json_schema", "x", schema=JSON)]),
)


def check(played: Played, request) -> None:
    toolbox = open_toolbox(request, {"convert_length": ConvertLength()})
    for item in played.items:
        if item.kind in ("function_call", "custom_call", "hosted_call"):
            offer = toolbox.find(item.name)
            assert offer is not None, "a call that may not be made"
            given_ = item.input if item.kind == "custom_call" else item.arguments
            assert offer.check(given_) is None, "an invalid call"
    client = [item for item in played.items if item.kind in ("function_call", "custom_call")]
    hosted = [item for item in played.items if item.kind == "hosted_call"]
    if not request.parallel_tool_calls:
        assert len(client) <= 1
    if request.max_tool_calls is not None:
        assert len(hosted) <= request.max_tool_calls
    if request.tool_choice.mode == "none":
        assert client == hosted == []
    if played.outcome is None:
        return
    usage, status = played.outcome.usage, played.outcome.status
    assert usage.reasoning_tokens <= usage.output_tokens
    if request.max_output_tokens is not None:
        assert usage.output_tokens <= request.max_output_tokens + CALL_TOKENS
    assert (status == "incomplete") == (played.outcome.incomplete is not None)
    if status == "completed":
        assert any(item.kind != "reasoning" for item in played.items)
        if request.format.type == "json_schema" and not client:
            assert schema(JSON).check(played.text) is None
    assert all(item.status != "in_progress" for item in played.items)


CALL_TOKENS = 40
"""The scripted engine says a call whole, also beyond the limit."""


@settings(max_examples=400)
@given(SCRIPT, REQUEST)
async def test_whatever_the_engine_says(script, request_):
    played = await play(script, request_, tools=(ConvertLength(),), fails=None)
    assert played.error is None or isinstance(played.error, OuzelError)
    event("ended with an error" if played.error else "ended well")
    check(played, request_)
