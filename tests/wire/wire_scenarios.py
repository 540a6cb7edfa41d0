"""The golden transcripts: what goes over the wire for fixed runs, byte for byte.

Each entry of `SCENARIOS` is a file in `golden/` and the function that makes its bytes. After a
change that is meant to alter the wire, write the files anew from the repository's root and read
the difference before you commit it:

    PYTHONPATH=tests .venv/bin/python -m wire.wire_scenarios
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ouzel.api import write_chat, write_items, write_responses
from ouzel.api.writing import advance, encode
from ouzel.core.events import Event, Failure, RunFinished
from ouzel.core.items import (
    CallOutput,
    CodeCall,
    CustomCall,
    File,
    FileCitation,
    FunctionCall,
    HostedCall,
    Logs,
    Message,
    Picture,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
)
from ouzel.core.request import (
    CustomTool,
    Format,
    FunctionTool,
    Grammar,
    HostedTool,
    ToolChoice,
)
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from wire.wire_runs import (
    CREATED,
    FINISHED,
    Said,
    called,
    chat_run,
    item_events,
    logprobs_wanted,
    ran,
    responses_run,
    run_events,
    run_of,
    said,
)

GOLDEN = Path(__file__).parent / "golden"

_CITED = FileCitation("cntr_1", "cfile_1", "a.csv", 4, 9)
ANSWER = [said("text", "Hel", "lo", ", wörld \u2028🌍")]
THOUGHT = [said("reasoning", "Greet ", "back."), said("summary", "Greeting.")]
REFUSAL = [said("refusal", "I can't ", "do that.")]
SCORED = [
    Said(
        "text",
        [
            ("Hi", (TokenLogprob("Hi", -0.25, (72, 105), (TokenLogprob("Yo", -1.5, (89, 111)),)),)),
            ("!", (TokenLogprob("!", float("-inf"), (), ()),)),
        ],
    )
]
DIED = Failure("server_error", "The engine died while it was answering.")
THINKING = Usage(30, 0, 20, 12)


def _responses(run: Run, events: Sequence[Event]) -> bytes:
    return write_responses.ResponseStream(run).write(events)


def _response(run: Run, events: Sequence[Event]) -> bytes:
    for event in events:
        run = advance(run, event)
    return encode(write_responses.response(run)) + b"\n"


def _chat(*choices: Sequence[Event], include_usage: bool = False) -> bytes:
    """The choices' events in turns, three at a time, as if they ran side by side."""
    stream = write_chat.ChatStream("chatcmpl-0", CREATED, "tiny", len(choices), include_usage)
    chunks = []
    for start in range(0, max(map(len, choices)), 3):
        chunks += [stream.write(i, events[start : start + 3]) for i, events in enumerate(choices)]
    return b"".join(chunks) + stream.done()


def _completion(run: Run, *choices: Sequence[Event]) -> bytes:
    runs = []
    for events in choices:
        finished = run
        for event in events:
            finished = advance(finished, event)
        runs.append(finished)
    return encode(write_chat.completion(runs)) + b"\n"


def _input_items() -> bytes:
    items = (
        Message("msg_1", "system", (Text("Be brief."),)),
        Message("msg_2", "user", (Text("Hello."), File("file-1", "data.csv"))),
        Message("msg_3", "assistant", (Text("Hi!"),)),
        Message("msg_4", "assistant", (Refusal("No."),)),
        Reasoning("rs_1", "Hm.", ("Thought.",)),
        FunctionCall("fc_1", "call_1", "weather", '{"city":"Oslo"}'),
        CallOutput("fco_1", "call_1", (Text("rain"),)),
        CustomCall("ctc_1", "call_2", "sums", "1+1"),
        CallOutput("cto_1", "call_2", (Text("2"), Text("!")), "custom", plain=False),
        HostedCall("mcp_1", "web_search", "search", "{}", "found"),
        CodeCall("ci_1", "cntr_1", "1+1", (Logs("2"),), "2"),
        Message("msg_5", "assistant", (Text("See a.csv.", annotations=(_CITED,)),)),
    )
    return encode(write_responses.input_items(items, limit=12, order="asc")) + b"\n"


_SCHEMA = (
    '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],'
    '"additionalProperties":false}'
)
_WEATHER = FunctionTool("weather", "Tells the weather.", _SCHEMA, strict=True)
_SUMS = CustomTool("sums", "", Grammar("regex", "[0-9+]+"))
_SEARCH = HostedTool("web_search", '{"search_context_size":"low"}')
_TOOLED = responses_run(
    tools=(_WEATHER, CustomTool("echo"), _SUMS, _SEARCH),
    tool_choice=ToolChoice("required", ("weather", "sums"), "allowed"),
    parallel_tool_calls=False,
    max_tool_calls=3,
    effort="low",
    summary="concise",
    format=Format("json_schema", "place", "Where it is.", _SCHEMA, strict=True),
    verbosity="low",
)
_NAMED = responses_run(
    tools=(_WEATHER,),
    tool_choice=ToolChoice("required", ("weather",), "named"),
    format=Format("json_object"),
)
_OSLO = FunctionCall("fc_1", "call_1", "weather")
_BERGEN = FunctionCall("fc_2", "call_2", "weather")
_SUM = CustomCall("ctc_1", "call_3", "sums")
_FOUND = HostedCall("mcp_1", "web_search", "search", output="A page.")
_LOST = HostedCall("mcp_2", "web_search", "search", error="No such page.", status="failed")
_ONE_CALL = run_of(called(0, _OSLO, '{"city":', '"Oslo"}'))
_TWO_CALLS = run_of(
    item_events(0, THOUGHT, "completed"),
    called(1, _OSLO, '{"city":"Oslo"}'),
    called(2, _BERGEN, '{"city":', '"Bergen"', "}"),
    usage=THINKING,
)
_CUSTOM_CALL = run_of(item_events(0, ANSWER, "completed"), called(1, _SUM, "1+", "1"))
_first, _second = called(0, _FOUND, "{}"), called(1, _LOST, '{"q":', "1}")
_HOSTED_CALLS = run_of(  # side by side: the second ends first
    [*_first[:-1], *_second, _first[-1]], item_events(2, ANSWER, "completed")
)

_CODE = HostedTool("code_interpreter", '{"container":{"type":"auto","file_ids":["file-1"]}}')
_CODING = responses_run(
    tools=(_CODE,), tool_choice=ToolChoice("required", ("code_interpreter",), "named")
)
_CODING_SHOWN = responses_run(tools=(_CODE,), include=frozenset({write_items.OUTPUTS}))
_PLOT = Picture("data:image/png;base64,iVBORw0KGgo=")
_PLOTTED = CodeCall("ci_0", "cntr_1", outputs=(Logs("2\n"), _PLOT), result="2")
_BROKEN = CodeCall("ci_1", "cntr_1", result="No place became free.", status="failed")
_RAN = run_of(
    ran(0, _PLOTTED, "print(1", "+1)"),
    ran(1, _BROKEN, "1/0"),
    item_events(
        2,
        [
            said("text", "Done."),
            Said(
                "text",
                [("See ", ()), ("a.csv.", ())],
                (_CITED, FileCitation("cntr_1", "cfile_2", "b.png", 10, 10)),
            ),
        ],
        "completed",
    ),
)
_CODE_CUT = [
    *run_of(ran(0, CodeCall("ci_0", "cntr_1", status="incomplete"), "whil"))[:-1],
    RunFinished("incomplete", Usage(3, 0, 2), FINISHED, incomplete="max_output_tokens"),
]

_FULL = responses_run(
    instructions="Be brief.",
    max_output_tokens=64,
    previous_id="resp_before",
    store=True,
    metadata={"k": "v"},
    labels={"user": "u", "safety_identifier": "s", "prompt_cache_key": "p"},
)
_SCORED = logprobs_wanted(1)
_TEXT = run_events(ANSWER)
_THOUGHT = run_events(THOUGHT, ANSWER, usage=THINKING)
_REFUSED = run_events(REFUSAL)
_CUT = run_events(ANSWER, status="incomplete", incomplete="max_output_tokens")
_FILTERED = run_events(ANSWER, status="incomplete", incomplete="content_filter")
_FAILED = run_events(ANSWER, status="failed", failure=DIED)
_CANCELLED = run_events(ANSWER, status="cancelled")

SCENARIOS: dict[str, Callable[[], bytes]] = {
    "responses-text.sse": lambda: _responses(responses_run(), _TEXT),
    "responses-text.json": lambda: _response(responses_run(), _TEXT),
    "responses-every-field.json": lambda: _response(_FULL, _TEXT),
    "responses-queued.sse": lambda: _responses(responses_run(), run_events(ANSWER, queued=True)),
    "responses-thinking.sse": lambda: _responses(responses_run(), _THOUGHT),
    "responses-refusal.sse": lambda: _responses(responses_run(), _REFUSED),
    "responses-logprobs.sse": lambda: _responses(
        responses_run(sampling=_SCORED), run_events(SCORED)
    ),
    "responses-incomplete.sse": lambda: _responses(responses_run(), _CUT),
    "responses-failed.sse": lambda: _responses(responses_run(), _FAILED),
    "responses-cancelled.sse": lambda: _responses(responses_run(), _CANCELLED),
    "responses-call.sse": lambda: _responses(_NAMED, _ONE_CALL),
    "responses-call.json": lambda: _response(_NAMED, _ONE_CALL),
    "responses-calls.sse": lambda: _responses(_TOOLED, _TWO_CALLS),
    "responses-custom-call.sse": lambda: _responses(_TOOLED, _CUSTOM_CALL),
    "responses-hosted-calls.sse": lambda: _responses(_TOOLED, _HOSTED_CALLS),
    "responses-code.sse": lambda: _responses(_CODING, _RAN),
    "responses-code.json": lambda: _response(_CODING, _RAN),
    "responses-code-outputs.sse": lambda: _responses(_CODING_SHOWN, _RAN),
    "responses-code-cut.sse": lambda: _responses(_CODING, _CODE_CUT),
    "chat-code.sse": lambda: _chat(_RAN),
    "chat-code.json": lambda: _completion(chat_run(), _RAN),
    "responses-input-items.json": _input_items,
    "chat-text.sse": lambda: _chat(_TEXT),
    "chat-text.json": lambda: _completion(chat_run(), _TEXT),
    "chat-thinking.sse": lambda: _chat(_THOUGHT),
    "chat-thinking.json": lambda: _completion(chat_run(), _THOUGHT),
    "chat-refusal.sse": lambda: _chat(_REFUSED),
    "chat-refusal.json": lambda: _completion(chat_run(), _REFUSED),
    "chat-logprobs.sse": lambda: _chat(run_events(SCORED)),
    "chat-logprobs.json": lambda: _completion(chat_run(sampling=_SCORED), run_events(SCORED)),
    "chat-call.sse": lambda: _chat(_ONE_CALL),
    "chat-calls.sse": lambda: _chat(_TWO_CALLS, include_usage=True),
    "chat-calls.json": lambda: _completion(chat_run(), _TWO_CALLS),
    "chat-custom-call.sse": lambda: _chat(_CUSTOM_CALL),
    "chat-custom-call.json": lambda: _completion(chat_run(), _CUSTOM_CALL),
    "chat-hosted-calls.sse": lambda: _chat(_HOSTED_CALLS),
    "chat-hosted-calls.json": lambda: _completion(chat_run(), _HOSTED_CALLS),
    "chat-incomplete.sse": lambda: _chat(_CUT),
    "chat-filtered.sse": lambda: _chat(_FILTERED),
    "chat-failed.sse": lambda: _chat(_FAILED, include_usage=True),
    "chat-cancelled.sse": lambda: _chat(_CANCELLED),
    "chat-two.sse": lambda: _chat(_TEXT, _CUT, include_usage=True),
    "chat-two.json": lambda: _completion(chat_run(metadata={"k": "v"}), _TEXT, _CUT),
    "chat-two-one-failed.sse": lambda: _chat(_TEXT, _FAILED, include_usage=True),
    "chat-usage.sse": lambda: _chat(_THOUGHT, include_usage=True),
}


if __name__ == "__main__":
    for name, make in SCENARIOS.items():
        (GOLDEN / name).write_bytes(make())
