"""Every kind of error, as a client reads it."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.exceptions import HTTPException

from ouzel.api import failures
from ouzel.core import errors
from ouzel.core.events import Failure
from wire.checks import check_error

_ID = "req_0123"


def _told(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    status, body, headers = failures.error_body(error, _ID)
    return status, check_error(body)["error"], headers


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.RequestError("m", param="p[0].q", code="c"), 400, "invalid_request_error"),
        (errors.NotFound("m", param="p[0].q", code="c"), 404, "invalid_request_error"),
        (errors.Conflict("m", param="p[0].q", code="c"), 409, "invalid_request_error"),
        (errors.TooLarge("m", param="p[0].q", code="c"), 413, "invalid_request_error"),
    ],
)
def test_the_callers_mistakes_are_told_as_they_are(
    error: Exception, status: int, kind: str
) -> None:
    told = {"message": "m", "type": kind, "param": "p[0].q", "code": "c"}
    assert _told(error) == (status, told, {})


def test_who_is_not_signed_in_is_told_how() -> None:
    status, error, headers = _told(errors.Unauthorized("No key.", code="invalid_api_key"))
    assert (status, error["code"]) == (401, "invalid_api_key")
    assert headers == {"www-authenticate": "Bearer"}


@pytest.mark.parametrize(
    ("seconds", "whole", "milliseconds"),
    [(1.0, "1", "1000"), (0.25, "1", "250"), (2.01, "3", "2010"), (0.0, "1", "0")],
)
def test_who_comes_too_often_is_told_when_to_come_back(
    seconds: float, whole: str, milliseconds: str
) -> None:
    status, error, headers = _told(errors.TooManyRequests("Full.", retry_after=seconds))
    assert (status, error["type"], error["code"]) == (
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert headers == {"retry-after": whole, "retry-after-ms": milliseconds}


def test_both_numbers_of_a_prompt_too_long_are_told() -> None:
    status, error, _ = _told(errors.ContextLengthExceeded(5000, 4096, param="messages"))
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert "5000" in error["message"]
    assert "4096" in error["message"]


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (errors.EngineUnavailable("Restarting.", retry_after=4), 503, "engine_unavailable", "4"),
        (errors.EngineDied("It died."), 500, "server_error", None),
        (errors.EngineError("It could not."), 500, "server_error", None),
        (errors.ShuttingDown("Stopping."), 503, "server_shutting_down", "5"),
    ],
)
def test_the_engines_errors_are_told_in_its_words(
    error: errors.OuzelError, status: int, code: str, retry: str | None
) -> None:
    found, told, headers = _told(error)
    assert (found, told["code"], told["type"]) == (status, code, "server_error")
    assert told["message"] == error.message
    assert headers.get("retry-after") == retry


@pytest.mark.parametrize(
    "error",
    [
        ValueError("SECRET"),
        KeyError("SECRET"),
        errors.StoreError("SECRET"),
        errors.WeightsError("SECRET"),
        ExceptionGroup("SECRET", [OSError("SECRET")]),
    ],
)
def test_of_anything_else_only_the_request_id_is_told(error: Exception) -> None:
    status, told, headers = _told(error)
    assert (status, told["type"], told["param"], headers) == (500, "server_error", None, {})
    assert _ID in told["message"]
    assert "SECRET" not in str(told)


def test_unknown_urls_and_methods() -> None:
    status, error, _ = _told(HTTPException(404))
    assert (status, error["code"], error["type"]) == (404, "unknown_url", "invalid_request_error")
    status, error, headers = _told(HTTPException(405, headers={"Allow": "GET, HEAD"}))
    assert (status, error["code"], headers) == (405, "method_not_allowed", {"allow": "GET, HEAD"})
    assert "GET, HEAD" in error["message"]
    status, error, _ = _told(HTTPException(418, "Short and stout."))
    assert (status, error["message"]) == (418, "Short and stout.")


@pytest.mark.parametrize(
    ("failure", "kind", "headers"),
    [
        (Failure("server_error", "m"), "server_error", {}),
        (Failure("context_length_exceeded", "m", 400), "invalid_request_error", {}),
        (
            Failure("engine_unavailable", "m", 503, 1.5),
            "server_error",
            {"retry-after": "2", "retry-after-ms": "1500"},
        ),
        (Failure("rate_limit_exceeded", "m", 429), "rate_limit_error", {}),
    ],
)
def test_a_run_that_failed_before_its_reply_began(
    failure: Failure, kind: str, headers: dict[str, str]
) -> None:
    status, body, found = failures.of_failure(failure)
    assert (status, found) == (failure.status, headers)
    told = {"message": "m", "type": kind, "param": None, "code": failure.code}
    assert check_error(body)["error"] == told
