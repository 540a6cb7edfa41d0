"""A hosted tool of the tests' own, from the client's JSON to the tool and back, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest
from loop_kit import chooses, guided_script
from openai import AsyncOpenAI

from harness import Running, serving
from hosted_tool import ConvertLength
from ouzel.api.endpoints import OWNER
from ouzel.core.request import HostedTool
from ouzel.engines.scripted import Call, Reply, Say, Script, ScriptedEngine

TWO_KM = '{"value":2,"unit":"km","to":"m"}'
WRONG = '{"value":2,"unit":"parsec","to":"m"}'
CONVERT = {"type": "convert_length"}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def wants(name: str, arguments: str, **more) -> Reply:
    return Reply((Say(arguments),), opening=f"{name}\n$", **more)


TOLD = Reply((Say("Told: {last}"),), opening="answer\n$")
GUIDED = guided_script(
    chooses("answer", last="^Result: 2000"),
    wants("convert_length", WRONG, times=1),
    chooses("convert_length"),
    wants("convert_length", TWO_KM),
    TOLD,
)
NATIVE = Script(
    (
        Reply((Say("Told: {last}"),), last="2000.* m$"),
        Reply((Call("convert_length", TWO_KM),), last="no unit"),
        Reply((Call("convert_length", WRONG),)),
    )
)
STYLES = pytest.mark.parametrize("script", [GUIDED, NATIVE], ids=["guided", "native"])


@asynccontextmanager
async def client_of(script: Script, home: Path) -> AsyncIterator[tuple[AsyncOpenAI, Running]]:
    async with (
        serving(ScriptedEngine(script), home, tools=(ConvertLength(),)) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        yield client, server


@STYLES
async def test_a_plain_response_has_the_failed_call_the_next_and_the_answer(script, tmp_path):
    async with client_of(script, tmp_path) as (client, server):
        response = await client.responses.create(
            model="o4-mini", input="2 km in m?", tools=[CONVERT]
        )
        failed, worked, message = response.output
        assert [item.type for item in response.output] == ["mcp_call", "mcp_call", "message"]
        assert (failed.status, failed.output) == ("failed", None)
        assert "no unit 'parsec'" in str(failed.error)
        assert (worked.name, worked.arguments, worked.output) == (
            "convert_length",
            TWO_KM,
            "2000.0 m",
        )
        assert worked.server_label == "convert_length"
        assert "2000.0 m" in response.output_text
        assert message.status == response.status == "completed"
        kept = await client.responses.retrieve(response.id)
        assert kept.output == response.output
        run = await server.store.load(response.id, OWNER)
        assert run.tally["hosted_calls"] == 2
        assert run.tally["failed_hosted_calls"] == 1


@STYLES
async def test_a_stream_tells_of_each_call(script, tmp_path):
    async with client_of(script, tmp_path) as (client, _):
        stream = await client.responses.create(
            model="o4-mini", input="2 km in m?", tools=[CONVERT], stream=True
        )
        events = [event async for event in stream]
    types = [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    call = [name for name in types if "mcp_call" in name]
    one = [
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
    ]
    assert call == [
        *one,
        "response.mcp_call.failed",
        *one,
        "response.mcp_call.completed",
    ]
    added = [e.item for e in events if e.type == "response.output_item.added"]
    done = [e.item for e in events if e.type == "response.output_item.done"]
    assert [item.id for item in added] == [item.id for item in done]
    assert added[0].arguments == ""
    assert types[-1] == "response.completed"
    assert events[-1].response.output == done


@STYLES
async def test_going_on_after_it_the_model_sees_the_call(script, tmp_path):
    async with client_of(script, tmp_path) as (client, server):
        first = await client.responses.create(model="o4-mini", input="2 km?", tools=[CONVERT])
        stateless = [
            {"role": "user", "content": "2 km?"},
            *[item.model_dump(exclude_none=True) for item in first.output],
            {"role": "user", "content": "2000 m"},
        ]
        for more in (
            {"previous_response_id": first.id, "input": "2000 m"},
            {"input": stateless},
        ):
            again = await client.responses.create(model="o4-mini", tools=[CONVERT], **more)
            assert again.status == "completed"
            shown = "".join(
                message.text + "".join(call.arguments for call in message.calls)
                for message in server.engine.turns[-1].messages
            )
            assert TWO_KM in shown
            assert "2000.0 m" in shown


@STYLES
async def test_chat_completions_show_the_answer_only(script, tmp_path):
    async with client_of(script, tmp_path) as (client, _):
        completion = await client.chat.completions.create(
            model="o4-mini",
            messages=[{"role": "user", "content": "2 km in m?"}],
            tools=[CONVERT],
        )
        (choice,) = completion.choices
        assert choice.finish_reason == "stop"
        assert choice.message.tool_calls is None
        assert "2000.0 m" in choice.message.content
        stream = await client.chat.completions.create(
            model="o4-mini",
            messages=[{"role": "user", "content": "2 km in m?"}],
            tools=[CONVERT],
            stream=True,
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "2000.0 m" in text
    assert not any(c.choices and c.choices[0].delta.tool_calls for c in chunks)


BOTH = {
    "guided": guided_script(
        chooses("get_weather", last="^Result: 2000"),
        chooses("convert_length"),
        wants("convert_length", TWO_KM),
        wants("get_weather", '{"city":"Oslo"}'),
        TOLD,
    ),
    "native": Script(
        (
            Reply((Say("Told: {last}"),), last="sunny"),
            Reply((Call("convert_length", TWO_KM), Call("get_weather", '{"city":"Oslo"}'))),
        )
    ),
}


@pytest.mark.parametrize("style", ["guided", "native"])
async def test_beside_a_function_of_the_clients(style, tmp_path):
    script = BOTH[style]
    if style == "guided":
        # After the client's result the model answers.
        script = guided_script(
            Reply((Say(" answer"),), opening="^Action:$", last="sunny"), *script.replies[:-1]
        )
    async with client_of(script, tmp_path) as (client, _):
        first = await client.responses.create(
            model="o4-mini", input="both, please", tools=[CONVERT, WEATHER]
        )
        assert [item.type for item in first.output] == ["mcp_call", "function_call"]
        call = first.output[1]
        assert (call.name, call.arguments) == ("get_weather", '{"city":"Oslo"}')
        second = await client.responses.create(
            model="o4-mini",
            previous_response_id=first.id,
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
            tools=[CONVERT, WEATHER],
        )
        assert second.output_text.endswith("sunny")


@STYLES
@pytest.mark.parametrize("most", [1, 2])
async def test_max_tool_calls(script, most, tmp_path):
    replies = (Reply((Say("Out of calls."),), tools=False), *NATIVE.replies)
    used = Script(replies) if script is NATIVE else script
    async with client_of(used, tmp_path) as (client, _):
        response = await client.responses.create(
            model="o4-mini", input="2 km in m?", tools=[CONVERT], max_tool_calls=most
        )
        assert [item.type for item in response.output] == ["mcp_call"] * most + ["message"]
        assert response.status == "completed"
        assert response.output_text


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "convert_length", "digits": 99}, "tools[0].digits"),
        ({"type": "convert_length", "nonsense": True}, "tools[0]"),
        ({"type": "convert_time"}, "tools[0].type"),
    ],
)
async def test_wrong_settings_are_a_bad_request(tool, param, tmp_path):
    async with client_of(NATIVE, tmp_path) as (client, _):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="o4-mini", input="2 km in m?", tools=[tool])
    assert caught.value.param == param


async def test_settings_reach_the_tool(tmp_path):
    third = '{"value":1,"unit":"ft","to":"mi"}'
    script = Script((Reply((Say("{last}"),), last=" mi$"), Reply((Call("convert_length", third),))))
    async with client_of(script, tmp_path) as (client, _):
        for digits, text in ((1, "0.0 mi"), (6, "0.000189 mi")):
            response = await client.responses.create(
                model="o4-mini", input="?", tools=[{"type": "convert_length", "digits": digits}]
            )
            assert response.output_text == text


async def test_a_tool_that_must_be_called_is_chosen_by_its_type(tmp_path):
    async with client_of(GUIDED, tmp_path) as (client, _):
        response = await client.responses.create(
            model="o4-mini",
            input="2 km in m?",
            tools=[WEATHER, CONVERT],
            tool_choice={"type": "convert_length"},
        )
    assert response.output[0].type == "mcp_call"


class Mistaken(ConvertLength):
    """Has a mistake in it that shows when it runs."""

    async def run(self, call):
        yield ConvertLength  # not a step at all


async def test_a_tool_with_a_mistake_fails_the_response_and_shows_nothing_of_it(tmp_path, caplog):
    async with (
        serving(ScriptedEngine(NATIVE), tmp_path, tools=(Mistaken(),)) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="o4-mini", input="2 km?", tools=[CONVERT])
    assert "ConvertLength" not in str(caught.value)
    assert "failed unexpectedly" in caplog.text


def test_the_tool_offers_what_its_settings_allow():
    (offer,) = ConvertLength().offer(HostedTool("convert_length", '{"digits": 2}'))
    assert offer.name == "convert_length"
