from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import check_events

from ouzel.core.events import Event, ItemDone, ItemStarted
from ouzel.core.items import CustomCall, FunctionCall, HostedCall, Message, Reasoning
from ouzel.loop.output import INTERRUPTED, Output

OPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "say",
                "refuse",
                "think",
                "summarise",
                "next_summary",
                "call",
                "custom",
                "begin",
                "stage",
                "finish",
                "close",
            ]
        ),
        st.text(max_size=4),
    ),
    max_size=25,
)


def perform(operations: list[tuple[str, str]], end: str) -> tuple[Output, list[Event]]:
    """Do all that, in an order in which the loop could; at the end it is closed."""
    output, events = Output(), []
    running: list[str] = []
    for number, (name, text) in enumerate(operations):
        match name:
            case "say":
                events += output.say(text)
            case "refuse":
                events += output.refuse(text)
            case "think":
                events += output.think(text)
            case "summarise":
                events += output.summarise(text)
            case "next_summary":
                events += output.next_summary()
            case "call":
                events += output.call(FunctionCall(f"fc_{number}", "call_1", "f", "{}"))
            case "custom":
                events += output.call(CustomCall(f"ctc_{number}", "call_1", "c", text))
            case "begin":
                item = HostedCall(f"call_{number}", "own", "f", "{}", status="in_progress")
                running.append(item.id)
                events += output.begin(item, "{}")
            case "stage" if running:
                events += output.stage(running[0], "searching")
            case "finish" if running:
                done = HostedCall(running.pop(0), "own", "f", "{}", output=text)
                events += output.finish(done)
            case "close":
                events += output.close()
    if end == "completed":
        for item_id in running:
            events += output.finish(HostedCall(item_id, "own", "f", "{}", output=""))
    events += output.close(end)
    return output, events


@given(OPS, st.sampled_from(["completed", "incomplete"]))
def test_any_order_of_operations_gives_well_formed_events(operations, end):
    output, events = perform(operations, end)
    check_events(events, output.items)
    assert not output.open


@given(OPS)
def test_nothing_is_left_in_progress_after_a_bad_end(operations):
    output, _ = perform(operations, "incomplete")
    assert not [item for item in output.items if item.status == "in_progress"]


@given(OPS)
def test_what_was_said_is_in_the_items(operations):
    output, _ = perform(operations, "completed")
    for kind, operation in ((Message, ("say", "refuse")), (Reasoning, ("think",))):
        said = "".join(text for name, text in operations if name in operation)
        assert "".join(item.text for item in output.items if isinstance(item, kind)) == said


def test_a_call_that_runs_when_the_end_comes_has_failed():
    output = Output()
    output.begin(HostedCall("call_1", "own", "f", "{}", status="in_progress"), "{}")
    (event,) = output.close("incomplete")
    assert isinstance(event, ItemDone)
    assert (event.item.status, event.item.error) == ("failed", INTERRUPTED)
    assert output.close("incomplete") == []


def test_a_call_that_runs_is_not_touched_by_what_is_said_beside_it():
    output = Output()
    output.begin(HostedCall("call_1", "own", "f", "{}", status="in_progress"), "{}")
    output.say("meanwhile")
    output.close()
    assert [item.status for item in output.items] == ["in_progress", "completed"]
    output.finish(HostedCall("call_1", "own", "f", "{}", output="done"))
    assert [item.status for item in output.items] == ["completed", "completed"]


def test_a_hosted_call_starts_without_its_arguments():
    output = Output()
    item = HostedCall("call_1", "own", "f", '{"a":1}', status="in_progress")
    started, *parts = output.begin(item, '{"a":1}')
    assert isinstance(started, ItemStarted)
    assert started.item.arguments == ""
    assert [part.channel for part in parts] == ["arguments"] * 3


def test_summaries_of_two_paragraphs_are_two_parts():
    output = Output()
    output.think("hm")
    output.summarise("First.")
    output.next_summary()
    output.summarise("Second.")
    output.close()
    (item,) = output.items
    assert item.summary == ("First.", "Second.")
    assert item.text == "hm"


@pytest.mark.parametrize("before", [[], ["think"], ["summarise"]])
def test_thinking_alone_is_no_answer(before):
    output = Output()
    for name in before:
        getattr(output, name)("x")
    assert not output.answered
    output.say("")
    assert output.answered
