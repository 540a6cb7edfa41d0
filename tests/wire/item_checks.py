"""Follows the items of a streamed response, for `checks.py`.

It knows the format only: nothing of Ouzel is imported.
"""

from __future__ import annotations

from typing import Any

_DONE_TEXT = {
    "response.output_text": "text",
    "response.refusal": "refusal",
    "response.reasoning_text": "text",
    "response.reasoning_summary_text": "text",
}
_CALL_TEXT = {
    "response.function_call_arguments": ("function_call", "arguments"),
    "response.mcp_call_arguments": ("mcp_call", "arguments"),
    "response.custom_tool_call_input": ("custom_tool_call", "input"),
    "response.code_interpreter_call_code": ("code_interpreter_call", "code"),
}
_CUT = ("incomplete", "failed")
_HOSTED = {
    "response.mcp_call": "mcp_call",
    "response.code_interpreter_call": "code_interpreter_call",
}
_ENDS = {"mcp_call": ("completed", "failed"), "code_interpreter_call": ("completed", *_CUT)}


_WITHOUT_STATUS = ("compaction",)
_EMPTY = ("arguments", "input", "code", "output", "outputs")
"""What a call has not when it begins."""


def same(found: Any, wanted: Any, what: str) -> None:
    assert found == wanted, f"{what}: {found!r} is not {wanted!r}"


class Items:
    """Follows items through a stream. Only tools that the server runs may overlap."""

    def __init__(self) -> None:
        self._done: dict[int, dict[str, Any]] = {}
        self._open: dict[str, _Item] = {}
        self._begun = 0

    @property
    def done(self) -> list[dict[str, Any]]:
        """The finished items, in the order of their indexes."""
        return [self._done[index] for index in sorted(self._done)]

    @property
    def open(self) -> list[str]:
        """Ids of the items that are not finished."""
        return list(self._open)

    def take(self, event: dict[str, Any]) -> None:
        """The next event between `in_progress` and the terminal one."""
        name = event["type"]
        if name == "response.output_item.added":
            self._begin(event)
            return
        closes = name == "response.output_item.done"
        item_id = event["item"]["id"] if closes else event["item_id"]
        assert item_id in self._open, f"{name} outside of an item"
        item = self._open[item_id]
        same(event["output_index"], item.index, f"output_index of {name}")
        if closes:
            item.close(event["item"])
            del self._open[item_id]
            self._done[item.index] = event["item"]
        else:
            item.take(event)

    def _begin(self, event: dict[str, Any]) -> None:
        item = event["item"]
        same(event["output_index"], self._begun, "output_index of an item that begins")
        assert item["id"] not in self._open, f"{item['id']} begins twice"
        kinds = {item["type"], *(other.first["type"] for other in self._open.values())}
        hosted = kinds <= set(_HOSTED.values())
        assert not self._open or hosted, f"{item['id']} begins inside of another"
        self._open[item["id"]] = _Item(item, self._begun)
        self._begun += 1


class _Item:
    """Follows one item: its parts, or what a call is made of, and its stages."""

    def __init__(self, first: dict[str, Any], index: int) -> None:
        begins = None if first["type"] in _WITHOUT_STATUS else "in_progress"
        same(first.get("status"), begins, "status of an item that begins")
        for name in (*_EMPTY, "content", "summary", "error"):
            assert not first.get(name), f"{name} of an item that begins: {first[name]!r}"
        self.first = first
        self.index = index
        self._part: dict[str, Any] | None = None
        self._place: tuple[Any, ...] = ()
        self._deltas: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._closing: dict[str, Any] | None = None
        self._parts: dict[str, list[dict[str, Any]]] = {"content": [], "summary": []}
        self._stages: list[str] = []
        self._annotations: list[dict[str, Any]] = []

    def take(self, event: dict[str, Any]) -> None:
        """The next event of this item, between its first and its last."""
        name = event["type"]
        stem, _, stage = name.rpartition(".")
        if stem in _CALL_TEXT:
            self._take_call(event, stem, stage)
        elif stem in _HOSTED:
            same(self.first["type"], _HOSTED[stem], f"the item of {name}")
            assert stage == "in_progress" or self._closing, f"{name} before the call was whole"
            self._stages.append(stage)
        elif stem == "response.output_text.annotation":
            self._annotate(event)
        elif stem.endswith("_part"):
            self._open_part(event) if stage == "added" else self._close_part(event)
        else:
            assert self._part is not None, f"{name} outside of a part"
            same(_place(event), self._place, f"the part that {name} belongs to")
            assert self._closing is None, f"{name} after the part's text was done"
            assert stage == "done" or not self._annotations, f"{name} after an annotation"
            self._delta(event) if stage == "delta" else self._text_done(event, _DONE_TEXT[stem])

    def _take_call(self, event: dict[str, Any], stem: str, stage: str) -> None:
        kind, name = _CALL_TEXT[stem]
        same(self.first["type"], kind, f"the item of {event['type']}")
        assert self._closing is None, f"{event['type']} after the call's {name} were done"
        if stage == "delta":
            self._deltas.append(event["delta"])
            return
        same("".join(self._deltas), event[name], f"the joined deltas and {event['type']}")
        same(event.get("name", self.first.get("name")), self.first.get("name"), "name of a call")
        self._closing = event

    def close(self, item: dict[str, Any]) -> None:
        """The item's last event."""
        assert self._part is None, f"{item['id']} ends with an open part"
        for name in ("id", "type", "role", "call_id", "name", "server_label", "container_id"):
            same(item.get(name), self.first.get(name), f"{name} of an item that ends")
        kind = item["type"]
        ends = _ENDS.get(kind, ("completed", "incomplete"))
        assert kind in _WITHOUT_STATUS or item["status"] in ends, f"{item['id']}: {item['status']}"
        same(self._stages, self._expected(item), f"stages of {item['id']}")
        for kind, name in _CALL_TEXT.values():
            if item["type"] == kind:
                assert self._closing is not None, f"{item['id']}: its {name} were never done"
                same(item[name], self._closing[name], f"{name} of {item['id']}")
        # Parts without text may be left out of the item.
        for group, parts in self._parts.items():
            written = [part for part in parts if item["type"] == "message" or part["text"]]
            same(item.get(group) or [], written, f"{group} of {item['id']} and its parts")

    def _expected(self, item: dict[str, Any]) -> list[str]:
        """The stages that an item has gone through when it ends as it does."""
        if item["type"] == "mcp_call":
            return ["in_progress", item["status"]]
        if item["type"] != "code_interpreter_call":
            return []
        ran = [stage for stage in self._stages if stage == "interpreting"][:1]
        end = ["completed"] if item["status"] == "completed" else []
        return ["in_progress", *ran, *end]

    def _annotate(self, event: dict[str, Any]) -> None:
        assert self._part is not None, "an annotation outside of a part"
        assert self._closing is None, "an annotation after the part's text was done"
        same(_place(event), self._place, "the part that an annotation belongs to")
        same(event["annotation_index"], len(self._annotations), "annotation_index")
        annotation, length = event["annotation"], sum(map(len, self._deltas))
        start, end = annotation["start_index"], annotation["end_index"]
        assert 0 <= start <= end <= length, f"an annotation from {start} to {end} of {length}"
        self._annotations.append(annotation)

    def _open_part(self, event: dict[str, Any]) -> None:
        assert self._part is None, f"{event['type']} inside of another part"
        group = "summary" if "summary_index" in event else "content"
        same(event[f"{group}_index"], len(self._parts[group]), f"{group}_index")
        part = event["part"]
        same(part.get("text", part.get("refusal")), "", "text of a part that begins")
        self._part, self._place, self._closing = part, _place(event), None
        self._deltas, self._logprobs, self._annotations = [], [], []

    def _delta(self, event: dict[str, Any]) -> None:
        self._deltas.append(event["delta"])
        self._logprobs.extend(event.get("logprobs") or ())

    def _text_done(self, event: dict[str, Any], name: str) -> None:
        same("".join(self._deltas), event[name], f"the joined deltas and {event['type']}")
        same(self._logprobs, event.get("logprobs") or [], f"log-probabilities of {event['type']}")
        self._closing = event

    def _close_part(self, event: dict[str, Any]) -> None:
        assert self._part is not None, f"{event['type']} without a part"
        assert self._closing is not None, f"{event['type']} before its text was done"
        same(_place(event), self._place, f"the part that {event['type']} belongs to")
        part = event["part"]
        same(part["type"], self._part["type"], "type of a part that ends")
        same(part.get("text", part.get("refusal")), "".join(self._deltas), "text of a part")
        same(part.get("logprobs") or [], self._logprobs, "log-probabilities of a part")
        same(part.get("annotations") or [], self._annotations, "annotations of a part")
        group = "summary" if "summary_index" in event else "content"
        self._parts[group].append(part)
        self._part = None


def _place(event: dict[str, Any]) -> tuple[Any, ...]:
    names = ("item_id", "output_index", "content_index", "summary_index")
    return tuple(event.get(name) for name in names)
