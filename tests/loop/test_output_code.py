"""Code that is shown, and files that are cited: what `Output` and `places` make of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from loop_kit import check_events

from ouzel.core.events import Annotated, Delta, Event, ItemDone, ItemStarted, PartDone, PartStarted
from ouzel.core.files import ContainerFile
from ouzel.core.items import CodeCall, HostedCall, Logs, Message
from ouzel.loop.citing import places
from ouzel.loop.output import INTERRUPTED, Output


def code_call(number: int = 1, code: str = "", **more) -> CodeCall:
    return CodeCall(f"ci_{number}", "cntr_1", code, **{"status": "in_progress"} | more)


def file(path: str, number: int | None = None) -> ContainerFile:
    return ContainerFile(f"cfile_{number or path}", "cntr_1", path, 1, 0.0)


NAMES = ["a.csv", "b/a.csv", "plot 1.png", "ü.txt", "Makefile", "a.csv.gz", "(x).json"]
FILES = st.lists(st.sampled_from(NAMES), max_size=5).map(
    lambda paths: [file(path, number) for number, path in enumerate(paths, 1)]
)
SPOKEN = st.lists(
    st.sampled_from(
        [*NAMES, *(f"sandbox:/mnt/data/{name}" for name in NAMES), "./", "/", ".", " ", "x", "-"]
    ),
    max_size=8,
).map("".join)

OPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "say",
                "refuse",
                "think",
                "open",
                "more",
                "shut",
                "begin",
                "hosted",
                "stage",
                "finish",
                "cite",
                "close",
            ]
        ),
        SPOKEN,
        FILES,
    ),
    max_size=25,
)


def perform(operations, end: str) -> tuple[Output, list[Event]]:
    """Do all that in an order in which the loop could, and close."""
    output, events = Output(), []
    running: list[str] = []
    writing = ""
    for number, (name, text, files) in enumerate(operations):
        if name in ("say", "refuse", "think", "begin", "hosted", "open", "cite", "close"):
            writing = ""
        match name:
            case "say" | "refuse" | "think":
                events += getattr(output, name)(text)
            case "open":
                item = code_call(number)
                events += output.open_code(item)
                writing = item.id
            case "more" if writing:
                events += output.more_code(text)
            case "shut" if writing:
                events += output.close_code()
                item = code_call(int(writing.removeprefix("ci_")), "ignored")
                assert output.begin(item, text) == []
                running.append(writing)
                writing = ""
            case "begin":
                item = code_call(number, text)
                running.append(item.id)
                events += output.begin(item, text)
            case "hosted":
                hosted = HostedCall(f"ci_{number}", "own", "f", "{}", status="in_progress")
                running.append(hosted.id)
                events += output.begin(hosted, "{}")
            case "stage" if running:
                events += output.stage(running[0], "interpreting")
            case "finish" if running:
                events += _finish(output, running.pop(0))
            case "cite":
                events += output.cite(files)
            case "close":
                events += output.close()
    if end == "completed":
        for item_id in running:
            events += _finish(output, item_id)
    events += output.close(end)
    return output, events


def _finish(output: Output, item_id: str) -> list[Event]:
    shown = next(item for item in output.items if item.id == item_id)
    if isinstance(shown, HostedCall):
        return output.finish(HostedCall(item_id, "own", "f", "{}", output="o"))
    done = CodeCall(item_id, "cntr_1", "not what was shown", (Logs("x"),), "x")
    return output.finish(done)


@given(OPS, st.sampled_from(["completed", "incomplete"]))
def test_any_order_of_operations_gives_well_formed_events(operations, end):
    output, events = perform(operations, end)
    check_events(events, output.items)
    assert not output.open
    assert not [item for item in output.items if item.status == "in_progress"]
    shown = {e.item_id: e.text for e in events if isinstance(e, PartDone) and e.channel == "code"}
    kept = {item.id: item.code for item in output.items if isinstance(item, CodeCall)}
    assert shown == kept


@given(OPS)
def test_annotations_lie_in_their_part_and_are_kept(operations):
    output, events = perform(operations, "completed")
    seen: list[Annotated] = []
    for event in events:
        if isinstance(event, Annotated):
            assert event.number == len(seen)
            seen.append(event)
        elif isinstance(event, Delta) and event.channel == "text":
            assert not seen, "text after an annotation"
        elif isinstance(event, PartDone) and event.channel == "text":
            assert event.annotations == tuple(each.annotation for each in seen)
            for each in seen:
                assert (each.index, each.item_id, each.part) == (
                    event.index,
                    event.item_id,
                    event.part,
                )
                assert 0 <= each.annotation.start <= each.annotation.end <= len(event.text)
            seen = []
    kept = [
        part.annotations
        for item in output.items
        if isinstance(item, Message)
        for part in item.parts
        if part.kind == "text"
    ]
    done = [e.annotations for e in events if isinstance(e, PartDone) and e.channel == "text"]
    assert kept == done


@given(SPOKEN, FILES)
def test_every_file_is_cited_where_it_is_named_or_at_the_end(text, files):
    found = places(text, files)
    assert {each.file_id for each in found} == {each.id for each in files}
    spans = [(each.start, each.end) for each in found]
    assert spans == sorted(spans)
    paths = {each.id: each for each in files}
    for each in found:
        named = text[each.start : each.end]
        assert each.name == paths[each.file_id].name
        if named:
            assert named.endswith(each.name)
        else:
            assert each.start == len(text)


def cited(text: str, *paths: str) -> list[tuple[str, str]]:
    return [
        (each.file_id.removeprefix("cfile_"), text[each.start : each.end])
        for each in places(text, [file(path) for path in paths])
    ]


def test_the_longest_way_of_naming_counts():
    text = "Get [it](sandbox:/mnt/data/out/a.csv) or /mnt/data/a.csv, not data-a.csv or a.csv.gz."
    assert cited(text, "a.csv", "out/a.csv") == [
        ("out/a.csv", "sandbox:/mnt/data/out/a.csv"),
        ("a.csv", "/mnt/data/a.csv"),
    ]


def test_a_name_may_end_a_sentence_and_stand_in_quotes():
    assert cited("I wrote `a.csv` and ./b.png. See a.csv.", "a.csv", "b.png") == [
        ("a.csv", "a.csv"),
        ("b.png", "./b.png"),
        ("a.csv", "a.csv"),
    ]


def test_links_may_be_escaped():
    text = "[plot](sandbox:/mnt/data/my%20plot.png)"
    assert cited(text, "my plot.png") == [("my plot.png", "sandbox:/mnt/data/my%20plot.png")]


def test_a_name_that_is_a_word_counts_in_a_path_only():
    assert cited("The result is in result.", "result") == [("result", "")]
    assert cited("See /mnt/data/result now", "result") == [("result", "/mnt/data/result")]


def test_of_two_files_of_one_name_the_bare_name_is_the_later_ones():
    assert cited("a.csv", "x/a.csv", "y/a.csv") == [("y/a.csv", "a.csv"), ("x/a.csv", "")]
    assert cited("a.csv", "a.csv", "y/a.csv") == [("a.csv", "a.csv"), ("y/a.csv", "")]


def test_files_are_cited_in_a_message_of_their_own_where_nothing_was_said():
    output = Output()
    events = output.cite([file("a.csv")]) + output.close()
    assert [event.kind for event in events] == [
        "item_started",
        "part_started",
        "annotated",
        "part_done",
        "item_done",
    ]
    assert output.cite([]) == []


def test_code_that_is_shown_while_it_is_written():
    output = Output()
    events = [
        *output.open_code(code_call()),
        *output.more_code("1+"),
        *output.more_code("1"),
        *output.close_code(),
        *output.begin(code_call(code="1+1"), "1+1"),
        *output.stage("ci_1", "interpreting"),
        *output.finish(CodeCall("ci_1", "cntr_1", "1+1", (Logs("2"),), "2")),
    ]
    assert isinstance(events[0], ItemStarted)
    assert events[0].item.code == ""
    assert isinstance(events[1], PartStarted)
    assert [e.text for e in events[2:5]] == ["1+", "1", "1+1"]
    assert [e.kind for e in events[5:]] == ["item_stage", "item_done"]


def test_code_that_is_cut_short_is_incomplete_whatever_the_end():
    for end in ("completed", "incomplete"):
        output = Output()
        output.open_code(code_call())
        assert output.open
        output.more_code("whil")
        *_, done = output.close(end)
        assert isinstance(done, ItemDone)
        assert (done.item.status, done.item.code) == ("incomplete", "whil")


def test_code_that_runs_when_the_end_comes_has_failed():
    output = Output()
    output.begin(code_call(code="1"), "1")
    (done,) = output.close("incomplete")
    assert (done.item.status, done.item.code, done.item.result) == ("failed", "1", INTERRUPTED)
