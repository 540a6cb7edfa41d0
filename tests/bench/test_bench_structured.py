"""The cases of structured answers and deadlines are as varied as they claim, and valid."""

from __future__ import annotations

import json

import jsonschema_rs

from bench import suite_deadline, suite_structured


def test_fifty_schemas_all_different() -> None:
    cases = suite_structured.load(suite_structured.DATA)
    assert len(cases) == len({case.name for case in cases}) == 50
    by = [sum(case.through == api for case in cases) for api in ("responses", "chat")]
    assert by == [25, 25]
    assert sum(case.stream for case in cases) >= 10
    schemas = [case for case in cases if case.type == "json_schema"]
    assert len({json.dumps(case.schema) for case in schemas}) == len(schemas) >= 45
    for case in schemas:
        jsonschema_rs.meta.validate(case.schema)
    text = json.dumps([case.schema for case in schemas])
    for keyword in ("enum", "anyOf", "oneOf", "allOf", "$ref", "pattern", "const", "format"):
        assert f'"{keyword}"' in text, keyword
    for case in cases:
        # The API wants the word in the prompt.
        assert case.type == "json_schema" or "JSON" in case.prompt


def test_twenty_questions_of_many_kinds() -> None:
    questions = suite_deadline.load(suite_deadline.DATA, 15)
    assert len(questions) == len({question.prompt for question in questions}) == 20
    assert len({question.kind for question in questions}) >= 8
    assert {question.within for question in questions} == {15}
