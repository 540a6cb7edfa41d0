"""The model list."""

from __future__ import annotations

from ouzel.api import write_models
from ouzel.core.contracts import EngineInfo
from wire.checks import check_body

_INFO = EngineInfo("tiny", 2048, frozenset(), 1_760_000_000.9)


def test_a_model_is_listed_under_each_of_its_names_once() -> None:
    body = check_body("models", write_models.models(_INFO, ("o4-mini", "tiny", "o4-mini")))
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["tiny", "o4-mini"]


def test_a_model_answers_to_the_name_it_was_asked_by() -> None:
    body = check_body("model", write_models.model(_INFO, "o4-mini"))
    assert body == {
        "id": "o4-mini",
        "object": "model",
        "created": 1_760_000_000,
        "owned_by": "ouzel",
    }
