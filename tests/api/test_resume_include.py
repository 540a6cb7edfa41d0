"""What is asked to be shown when a stored response is streamed again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from resume_kit import Gated

from ouzel.api.endpoints import OWNER
from ouzel.core.events import ItemDone, ItemStarted, RunFinished, RunStarted
from ouzel.core.items import CodeCall, Logs, Message, Text, new_id
from ouzel.core.request import Request
from ouzel.core.runs import Run
from ouzel.core.turns import Usage

OUTPUTS = "code_interpreter_call.outputs"


async def test_include_holds_for_a_stream_too(http: Any, serve: Any) -> None:
    server = await serve(Gated())
    call = CodeCall("ci_1", "cntr_1", "print(1)", (Logs("1"),), "1")
    asked = (Message("msg_1", "user", (Text("one?"),)),)
    request = Request("responses", "o4-mini", asked, store=True)
    run = Run(new_id("resp"), OWNER, "scripted", 0.0, request)
    await server.store.begin(run)
    used = Usage(1, 0, 1)
    end = RunFinished("completed", used, 1.0)
    done = replace(run, status="completed", output=(call,), usage=used, finished_at=1.0)
    events = [RunStarted(), ItemStarted(0, call), ItemDone(0, call), end]
    await server.store.finish(done, 0, events)
    for include, shown in (("", False), (f"&include[]={OUTPUTS}", True)):
        url = f"{server.base_url}/responses/{run.id}?stream=true{include}"
        async with http.get(url) as reply:
            assert reply.status == 200
            told = [
                json.loads(line[6:])
                for line in (await reply.text()).splitlines()
                if line.startswith("data: ")
            ]
        items = [told[-1]["response"]["output"][0]]
        items += [each["item"] for each in told if each["type"] == "response.output_item.done"]
        assert all(bool(item["outputs"]) is shown for item in items)
