"""`code_interpreter` from the client's request to the sandbox and back, over HTTP, all of it real
but the model."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from files_kit import real_containers, real_files, real_jail
from openai import AsyncOpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

from harness import Running
from ouzel.engines.scripted import Call, Reply, Say, Script, ScriptedEngine
from ouzel.sandbox.containers import SandboxContainers
from ouzel.sandbox.environment import ensure_interpreter
from ouzel.store import SqlFiles
from ouzel.tools.code_interpreter import CodeInterpreter
from wire.checks import check_chat_stream, check_response_stream

AUTO = {"type": "code_interpreter", "container": {"type": "auto"}}
OUTPUTS = ["code_interpreter_call.outputs"]
CSV = "name,price\n" + "".join(f"n{at},{at}\n" for at in range(10))
SUM = """
import pandas as pd, matplotlib.pyplot as plt
table = pd.read_csv("data.csv")
table.plot(y="price")
plt.show()
table.head(2).to_csv("head.csv")
print(table["price"].sum())
"""


@dataclass
class Place:
    """A server whose model calls Python."""

    server: Running
    client: AsyncOpenAI
    files: SqlFiles
    rooms: SandboxContainers
    engine: ScriptedEngine

    def shown(self) -> str:
        """All that the model was shown last."""
        return "\n".join(message.text for message in self.engine.turns[-1].messages)


def engine(*codes: str, answer: str = "It is done: head.csv. Told: {last}") -> ScriptedEngine:
    """A model that runs each of these once, one after another, then answers."""
    calls = [Call("python", json.dumps({"input": code})) for code in codes]
    replies = [Reply((call,), times=1) for call in calls]
    return ScriptedEngine(Script((*replies, Reply((Say(answer),))), context_window=50_000))


@pytest.fixture
async def place(tmp_path: Path, serve: Any, sdk: Any) -> AsyncIterator[Any]:
    interpreter = ensure_interpreter(Path.home() / ".cache" / "ouzel")
    async with real_files(tmp_path / "kept") as files:
        jail = await real_jail(tmp_path)
        rooms = real_containers(tmp_path / "rooms", files, jail, interpreter, disk_mb=64)
        await rooms.start()

        async def make(*codes: str, script: Script | None = None, **more: Any) -> Place:
            made = ScriptedEngine(script) if script else engine(*codes, **more)
            tool = CodeInterpreter(rooms, files, memory_mb=1024)
            server = await serve(made, files=files, containers=rooms, tools=(tool,))
            return Place(server, sdk(server), files, rooms, made)

        yield make
        await rooms.close()


def file_part(text: str = CSV, name: str = "data.csv") -> dict[str, str]:
    data = base64.b64encode(text.encode()).decode()
    return {"type": "input_file", "filename": name, "file_data": f"data:text/csv;base64,{data}"}


def asked(*parts: dict[str, str], text: str = "Sum the prices.") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "input_text", "text": text}]}]


async def test_a_plain_response_runs_code_over_a_file_and_cites_what_it_left(place: Any) -> None:
    here = await place(SUM)
    response = await here.client.responses.create(
        model="o4-mini", input=asked(file_part()), tools=[AUTO], include=OUTPUTS
    )
    call, message = response.output
    assert (call.type, call.status) == ("code_interpreter_call", "completed")
    assert call.id.startswith("ci_")
    assert call.code == SUM.strip("\n")
    kinds = {each.type for each in call.outputs}
    assert kinds == {"logs", "image"}
    assert "45" in "".join(each.logs for each in call.outputs if each.type == "logs")
    image = next(each.url for each in call.outputs if each.type == "image")
    assert base64.b64decode(image.partition("base64,")[2]).startswith(b"\x89PNG")
    cited = message.content[0].annotations
    named = next(each for each in cited if each.filename == "head.csv")
    text = message.content[0].text
    assert text[named.start_index : named.end_index] == "head.csv"
    content = await here.client.containers.files.content.retrieve(
        named.file_id, container_id=named.container_id
    )
    assert b"n0,0" in content.content
    first = "\n".join(each.text for each in here.engine.turns[0].messages)
    assert "data.csv" in first
    assert "price (int)" in first
    kept = await here.client.responses.retrieve(response.id)
    assert kept.output[0].outputs == call.outputs


async def test_a_container_deleted_in_the_midst_comes_again_with_its_files(
    place: Any, http: Any
) -> None:
    here = await place("import time\ntime.sleep(60)", "print(open('data.csv').read())")
    body = {"model": "o4-mini", "input": asked(file_part()), "tools": [AUTO], "stream": True}
    body["include"] = OUTPUTS
    got, deleted = b"", False
    async with http.post(f"{here.server.base_url}/responses", json=body) as reply:
        async for piece in reply.content.iter_any():
            got += piece
            if b".interpreting" in got and not deleted:
                deleted = True
                (container,) = (await here.client.containers.list()).data
                await here.client.containers.delete(container.id)
    first, second, _ = check_response_stream(got).response["output"]
    assert first["status"] in ("incomplete", "failed"), "stopped, or about to begin"
    assert second["outputs"] == [{"type": "logs", "logs": CSV + "\n"}]


async def test_outputs_are_shown_only_to_who_asks(place: Any) -> None:
    here = await place("print(6 * 7)")
    response = await here.client.responses.create(model="o4-mini", input="?", tools=[AUTO])
    assert response.output[0].outputs is None
    assert "42" in response.output_text
    kept = await here.client.responses.retrieve(response.id, include=OUTPUTS)
    assert kept.output[0].outputs[0].logs == "42\n"


async def test_a_stream_has_every_event_in_order(place: Any, http: Any) -> None:
    here = await place("x = 6 * 7\nprint(x)", "print(x + 1)")
    body = {"model": "o4-mini", "input": "?", "tools": [AUTO], "stream": True, "include": OUTPUTS}
    async with http.post(f"{here.server.base_url}/responses", json=body) as reply:
        seen = check_response_stream(await reply.read())
    stem = "response.code_interpreter_call"
    one = [
        f"{stem}.in_progress",
        f"{stem}_code.delta",
        f"{stem}_code.done",
        f"{stem}.interpreting",
        f"{stem}.completed",
    ]
    assert [name for name in seen.names if "code_interpreter" in name] == [*one, *one]
    first, second, _ = seen.response["output"]
    assert second["outputs"] == [{"type": "logs", "logs": "43\n"}]
    assert first["container_id"] == second["container_id"]


async def test_the_next_turn_finds_variables_and_files(place: Any) -> None:
    here = await place("x = open('data.csv').read()\nopen('new.txt', 'w').write('n')")
    first = await here.client.responses.create(
        model="o4-mini", input=asked(file_part()), tools=[AUTO]
    )
    container = first.output[0].container_id
    again = await place("print(len(x))")
    second = await again.client.responses.create(
        model="o4-mini",
        input="And its length?",
        previous_response_id=first.id,
        tools=[AUTO],
        include=OUTPUTS,
    )
    assert second.output[0].container_id == container
    assert second.output[0].outputs[0].logs == f"{len(CSV)}\n"
    first_shown = "\n".join(each.text for each in again.engine.turns[0].messages)
    assert "new.txt" in first_shown


async def test_what_went_wrong_is_told_to_the_model_and_is_no_failure(place: Any) -> None:
    here = await place("import pandas as pd\ndf = pd.read_csv('data.csv')\ndf['Price'].sum()")
    response = await here.client.responses.create(
        model="o4-mini", input=asked(file_part()), tools=[AUTO], include=OUTPUTS
    )
    call = response.output[0]
    assert call.status == "completed"
    assert call.outputs[-1].logs == "Line 3: df['Price'].sum()\nKeyError: 'Price'\n"
    assert "data.csv has the columns name, price." in here.shown()
    assert "site-packages" not in here.shown()


async def test_chat_completions_show_it_in_fields_of_their_own(place: Any, http: Any) -> None:
    here = await place("open('head.csv', 'w').write('a')\nprint(41 + 1)")
    data = base64.b64encode(CSV.encode()).decode()
    message = {
        "role": "user",
        "content": [
            {"type": "file", "file": {"filename": "data.csv", "file_data": data}},
            {"type": "text", "text": "Go."},
        ],
    }
    body = {"model": "o4-mini", "messages": [message], "tools": [AUTO]}
    async with http.post(
        f"{here.server.base_url}/chat/completions", json={**body, "stream": True}
    ) as reply:
        seen = check_chat_stream(await reply.read())
    assert seen.finish == {0: "stop"}
    assert seen.hosted[0][0]["outputs"] == [{"type": "logs", "logs": "42\n"}]
    file = seen.files[0][0]
    assert seen.text()[file["start_index"] : file["end_index"]] == "head.csv"
    again = await place("print(open('head.csv').read())")
    answer = {
        "role": "assistant",
        "content": seen.text(),
        "hosted_tool_calls": seen.hosted[0],
        "container_files": seen.files[0],
    }
    completion = await again.client.chat.completions.create(
        model="o4-mini",
        messages=[message, answer, {"role": "user", "content": "What is in it?"}],
        tools=[AUTO],
    )
    (call,) = completion.choices[0].message.hosted_tool_calls
    assert call["container_id"] == seen.hosted[0][0]["container_id"]
    assert call["outputs"] == [{"type": "logs", "logs": "a\n"}]


async def test_the_sdks_own_accumulators_follow(place: Any) -> None:
    here = await place("print(1)")
    async with here.client.responses.stream(model="o4-mini", input="?", tools=[AUTO]) as stream:
        response = await stream.get_final_response()
    assert response.output[0].code == "print(1)"
    here = await place("print(2)")
    state = ChatCompletionStreamState()
    chunks = await here.client.chat.completions.create(
        model="o4-mini", messages=[{"role": "user", "content": "?"}], tools=[AUTO], stream=True
    )
    async for chunk in chunks:
        state.handle_chunk(chunk)
    message = state.get_final_completion().choices[0].message
    assert message.hosted_tool_calls[0]["code"] == "print(2)"


@pytest.mark.parametrize(
    ("container", "param", "code", "status"),
    [
        ("cntr_no", "tools[0].container", "container_not_found", 404),
        ({"type": "car"}, "tools[0].container.type", "invalid_value", 400),
        ({"type": "auto", "x": 1}, "tools[0].container.x", "unknown_parameter", 400),
        (
            {"type": "auto", "file_ids": ["file-no"]},
            "tools[0].container.file_ids[0]",
            "file_not_found",
            400,
        ),
        (
            {"type": "auto", "memory_limit": "64g"},
            "tools[0].container.memory_limit",
            "unsupported_value",
            400,
        ),
        (
            {"type": "auto", "network_policy": {"type": "allowlist", "allowed_domains": ["a"]}},
            "tools[0].container.network_policy.type",
            "unsupported_value",
            400,
        ),
    ],
)
async def test_what_is_wrong_with_the_settings_is_named(
    place: Any, container: Any, param: str, code: str, status: int
) -> None:
    here = await place()
    with pytest.raises(openai.APIStatusError) as caught:
        await here.client.responses.create(
            model="o4-mini",
            input="?",
            tools=[{"type": "code_interpreter", "container": container}],
        )
    error = caught.value
    assert (error.param, error.code, error.status_code) == (param, code, status)


async def test_files_in_messages_without_the_tool(place: Any) -> None:
    here = await place(answer="Told: {last}")
    response = await here.client.responses.create(model="o4-mini", input=asked(file_part()))
    assert "n9,9" in response.output_text
    items = await here.client.responses.input_items.list(response.id)
    part = items.data[0].content[0]
    assert (part.type, part.filename) == ("input_file", "data.csv")
    assert (await here.client.files.retrieve(part.file_id)).bytes == len(CSV)
    binary = {**file_part(), "file_data": base64.b64encode(b"\xff\0\xfe").decode()}
    for input_, param in (
        (asked(binary), "input[0].content[0].file_data"),
        (asked({"type": "input_file", "file_id": "file-no"}), "input[0].content[0].file_id"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await here.client.responses.create(model="o4-mini", input=input_)
        assert caught.value.param == param
    said = {"role": "user", "content": "hm"}
    spoken = {"role": "assistant", "reasoning_content": "a", "content": "b"}
    wrong = {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-no"}}]}
    with pytest.raises(openai.BadRequestError) as caught:
        await here.client.chat.completions.create(model="o4-mini", messages=[said, spoken, wrong])
    assert caught.value.param == "messages[2].content[0].file.file_id"


async def test_two_cells_at_once_share_a_container_and_its_files(place: Any) -> None:
    calls = [
        Call("python", json.dumps({"input": f"print(len(open('data.csv').read()) + {n})"}))
        for n in (1, 2)
    ]
    replies = (Reply(tuple(calls), times=1), Reply((Say("Done."),)))
    here = await place(script=Script(replies, context_window=50_000))
    response = await here.client.responses.create(
        model="o4-mini", input=asked(file_part()), tools=[AUTO], include=OUTPUTS
    )
    first, second, _ = response.output
    assert first.container_id == second.container_id
    assert [each.outputs[0].logs for each in (first, second)] == [
        f"{len(CSV) + 1}\n",
        f"{len(CSV) + 2}\n",
    ]


async def test_a_hung_cell_is_stopped_and_the_answer_comes(place: Any) -> None:
    here = await place("x = 5\nwhile True: pass", "print(x)")
    response = await here.client.responses.create(
        model="o4-mini",
        input="?",
        tools=[AUTO],
        include=OUTPUTS,
        extra_headers={"x-answer-within": "30"},
    )
    hung, after, _ = response.output
    assert (hung.status, after.status, response.status) == ("incomplete", "completed", "completed")
    assert after.outputs[0].logs == "5\n"


async def test_a_conversation_whose_container_is_gone_gets_another(place: Any) -> None:
    here = await place("1", "print(2)")
    first = await here.client.responses.create(model="o4-mini", input="?", tools=[AUTO])
    named = first.output[0].container_id
    await here.client.containers.delete(named)
    with pytest.raises(openai.NotFoundError):
        await here.client.responses.create(
            model="o4-mini", input="?", tools=[{"type": "code_interpreter", "container": named}]
        )
    again = await place("print(3)")
    second = await again.client.responses.create(
        model="o4-mini", input="?", previous_response_id=first.id, tools=[AUTO], include=OUTPUTS
    )
    assert second.output[0].container_id != named
    assert second.output[0].outputs[0].logs == "3\n"
