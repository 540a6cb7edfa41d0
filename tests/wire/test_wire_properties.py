"""Whatever a run says, in whatever batches, the wire is valid and says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ouzel.api import write_chat, write_items, write_responses
from ouzel.api.writing import advance, encode
from ouzel.core.events import Event, Failure, ItemDone, RunFinished
from ouzel.core.items import (
    CodeCall,
    CustomCall,
    FileCitation,
    FunctionCall,
    HostedCall,
    Logs,
    Picture,
    TokenLogprob,
)
from ouzel.core.request import Sampling
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from wire.checks import check_chat, check_chat_stream, check_response, check_response_stream
from wire.wire_runs import (
    CallItem,
    Piece,
    Said,
    called,
    chat_run,
    ran,
    responses_run,
    run_events,
)

# Characters that break naive writers come often: line ends of every kind, halves of characters.
_CHARACTERS = st.one_of(
    st.characters(),
    st.sampled_from('\r\n\x00\x0b\x0c\x1c\x1e\x7f\x85\u2028\u2029\ud83d\ude00\ufeff"\\/{}: 🌍'),
)
_TEXT = st.text(_CHARACTERS, max_size=8)
_FLAT = st.builds(
    TokenLogprob,
    token=_TEXT,
    logprob=st.floats(max_value=0.0) | st.just(float("nan")),
    raw=st.lists(st.integers(0, 255), max_size=3).map(tuple),
)
_TOKENS = st.builds(replace, _FLAT, top=st.lists(_FLAT, max_size=2).map(tuple))


def _pieces(scored: bool) -> st.SearchStrategy[list[Piece]]:
    tokens = st.lists(_TOKENS, max_size=2).map(tuple) if scored else st.just(())
    return st.lists(st.tuples(_TEXT, tokens), max_size=4)


def _cited(part: Said, ends: list[int]) -> Said:
    """The part with citations somewhere in its text."""
    places = [end % (len(part.text) + 1) for end in ends]
    spans = [(min(pair), max(pair)) for pair in pairwise(places)]
    cited = tuple(FileCitation("cntr_1", f"cfile_{a}", "ä.csv", a, b) for a, b in spans)
    return replace(part, annotations=cited)


_MESSAGES = st.lists(
    st.builds(
        _cited,
        st.builds(Said, st.just("text"), _pieces(True)),
        st.lists(st.integers(0, 40), max_size=4),
    )
    | st.builds(Said, st.just("refusal"), _pieces(False)),
    max_size=3,
)
_SPOKEN = _pieces(False).filter(lambda pieces: any(text for text, _ in pieces))
_THOUGHTS = st.builds(
    lambda thinking, summaries: [*thinking, *summaries],
    st.lists(st.builds(Said, st.just("reasoning"), _SPOKEN), max_size=1),
    st.lists(st.builds(Said, st.just("summary"), _SPOKEN), max_size=2),
)
_CALLS = st.tuples(
    st.sampled_from(["function", "custom", "hosted", "failed", "ran", "stuck", "cut"]),
    st.lists(_TEXT, max_size=4),
)


_CODE = {"ran": "completed", "stuck": "failed", "cut": "incomplete"}


def _called(index: int, kind: str, pieces: list[str]) -> list[Event]:
    if kind in _CODE:
        outputs = (Logs("".join(pieces)), Picture("data:image/png;base64,AAAA"))
        whole = CodeCall(f"ci_{index}", "cntr_1", outputs=outputs, status=_CODE[kind])
        return ran(index, whole, *pieces)
    calls: dict[str, CallItem] = {
        "function": FunctionCall(f"fc_{index}", f"call_{index}", "f"),
        "custom": CustomCall(f"ctc_{index}", f"call_{index}", "c"),
        "hosted": HostedCall(f"mcp_{index}", "l", "n", output="o"),
        "failed": HostedCall(f"mcp_{index}", "l", "n", error="e", status="failed"),
    }
    return called(index, calls[kind], *pieces)


def _with_calls(events: list[Event], calls: list[tuple[str, list[str]]]) -> list[Event]:
    """The run with calls at its end."""
    count = sum(isinstance(event, ItemDone) for event in events)
    more = [_called(count + place, *call) for place, call in enumerate(calls)]
    return [*events[:-1], *(event for each in more for event in each), events[-1]]


_USAGES = st.tuples(*[st.integers(0, 1 << 40)] * 4).map(
    lambda n: Usage(n[0] + n[1], n[1], n[2] + n[3], n[3])
)
_ENDINGS = st.one_of(
    st.just({"status": "completed"}),
    st.just({"status": "cancelled"}),
    st.sampled_from(["max_output_tokens", "content_filter"]).map(
        lambda reason: {"status": "incomplete", "incomplete": reason}
    ),
    st.builds(Failure, _TEXT, _TEXT.filter(str.strip), st.sampled_from([400, 429, 500, 503])).map(
        lambda failure: {"status": "failed", "failure": failure}
    ),
)
_RUNS = st.builds(
    lambda items, calls, ending, usage, queued: _with_calls(
        run_events(*items, usage=usage, queued=queued, **ending), calls
    ),
    st.lists(_MESSAGES | _THOUGHTS, max_size=4),
    st.lists(_CALLS, max_size=3),
    _ENDINGS,
    _USAGES,
    st.booleans(),
)
_CUTS = st.lists(st.integers(0, 60), max_size=8).map(sorted)


def _batches(events: Sequence[Event], cuts: Sequence[int]) -> list[Sequence[Event]]:
    edges = [0, *cuts, len(events)]
    return [events[start:end] for start, end in pairwise(edges)]


def _finished(run: Run, events: Sequence[Event]) -> Run:
    for event in events:
        run = advance(run, event)
    return run


@given(_RUNS, _CUTS, st.sampled_from([(), (write_items.OUTPUTS,)]))
@settings(max_examples=120, deadline=None)
def test_any_run_is_a_valid_response_stream(
    events: list[Event], cuts: list[int], include: tuple[str, ...]
) -> None:
    run = responses_run(include=frozenset(include))
    whole = write_responses.ResponseStream(run).write(events)
    seen = check_response_stream(whole)
    stream = write_responses.ResponseStream(run)
    assert b"".join(stream.write(batch) for batch in _batches(events, cuts)) == whole
    plain = check_response(encode(write_responses.response(_finished(run, events))))
    assert plain == seen.response
    code = [item for item in plain["output"] if item["type"] == "code_interpreter_call"]
    assert all((item["outputs"] is not None) == bool(include) for item in code)


@given(st.lists(_RUNS, min_size=1, max_size=3), _CUTS, st.booleans())
@settings(max_examples=120, deadline=None)
def test_any_runs_are_a_valid_chat_stream(
    choices: list[list[Event]], cuts: list[int], include_usage: bool
) -> None:
    stream = write_chat.ChatStream("chatcmpl-0", 1.5, "tiny", len(choices), include_usage)
    rounds = zip(*[_batches(events, cuts) for events in choices], strict=True)
    data = b"".join(
        stream.write(index, batch) for batches in rounds for index, batch in enumerate(batches)
    )
    ends = {end.status for events in choices if isinstance(end := events[-1], RunFinished)}
    failed = "failed" in ends
    seen = check_chat_stream(data + stream.done(), interrupted="cancelled" in ends)
    assert (seen.error is not None) == failed == stream.failed
    if failed:
        return
    asked = chat_run(sampling=Sampling(top_logprobs=0))
    runs = [_finished(asked, events) for events in choices]
    plain = check_chat(encode(write_chat.completion(runs)))
    assert [choice["finish_reason"] for choice in plain["choices"]] == [
        seen.finish[index] for index in range(len(choices))
    ]
    assert [choice["message"].get("tool_calls") for choice in plain["choices"]] == [
        seen.calls.get(index) for index in range(len(choices))
    ]
    for name, streamed in (("hosted_tool_calls", seen.hosted), ("container_files", seen.files)):
        assert [choice["message"].get(name) for choice in plain["choices"]] == [
            streamed.get(index) for index in range(len(choices))
        ]
    if include_usage:
        assert seen.usage == plain.get("usage")
