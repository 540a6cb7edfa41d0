"""What can be said of a request before it is taken, given the engine and the conversation. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ouzel.answer.failing import PROMPT
from ouzel.core.contracts import EngineInfo
from ouzel.core.errors import RequestError
from ouzel.core.items import CallOutput, CustomCall, FunctionCall, Item
from ouzel.core.request import Protocol, Request, Sampling
from ouzel.loop.run import DEFAULT_EFFORT
from ouzel.loop.schemas import schema


def check_capabilities(request: Request, info: EngineInfo) -> None:
    """Refuse what the engine cannot honour.

    Raises:
        RequestError: `unsupported_parameter`, with the parameter.
    """
    sampling = request.sampling
    chat = request.protocol == "chat"
    wanted = (
        ("logprobs", "logprobs" if chat else "top_logprobs", sampling.top_logprobs is not None),
        ("logit_bias", "logit_bias", bool(sampling.logit_bias)),
        ("seed", "seed", sampling.seed is not None),
        ("stop", "stop", bool(sampling.stop)),
        ("penalties", "presence_penalty", bool(sampling.presence_penalty)),
        ("penalties", "frequency_penalty", bool(sampling.frequency_penalty)),
    )
    for capability, param, asked in wanted:
        if asked and capability not in info.capabilities:
            raise RequestError(
                f"Unsupported parameter: '{param}' is not supported by the engine that serves "
                f"'{info.model}'.",
                param=param,
                code="unsupported_parameter",
            )


def check_calls(items: Sequence[Item], protocol: Protocol) -> None:
    """Every output belongs to a call before it, and every call of the client's has an output.

    Raises:
        RequestError: naming the call.
    """
    waiting: dict[str, None] = {}
    known: set[str] = set()
    for item in items:
        if isinstance(item, FunctionCall | CustomCall):
            waiting[item.call_id] = None
            known.add(item.call_id)
        elif isinstance(item, CallOutput):
            if item.call_id not in known:
                raise RequestError(
                    f"No tool call found for function call output with call_id {item.call_id}.",
                    param=PROMPT[protocol],
                    code="invalid_value",
                )
            waiting.pop(item.call_id, None)
    if waiting:
        raise RequestError(
            f"No tool output found for function call {next(iter(waiting))}.",
            param=PROMPT[protocol],
            code="invalid_value",
        )


def check_format(request: Request) -> None:
    """The schema of the answer's format can be used.

    Raises:
        RequestError: naming the parameter.
    """
    if request.format.type != "json_schema":
        return
    try:
        schema(request.format.schema)
    except RequestError as error:
        chat = request.protocol == "chat"
        error.param = "response_format.json_schema.schema" if chat else "text.format.schema"
        raise


def with_defaults(request: Request, defaults: Sampling, answer_within: float) -> Request:
    """The request with what will really be used where it is left open, as the client is told.

    Args:
        defaults: the engine's sampling; temperature and top_p are always set in it.
        answer_within: the server's own limit in seconds.
    """
    asked = request.sampling
    temperature = defaults.temperature if asked.temperature is None else asked.temperature
    top_p = defaults.top_p if asked.top_p is None else asked.top_p
    within = answer_within if request.answer_within is None else request.answer_within
    return replace(
        request,
        sampling=replace(asked, temperature=temperature, top_p=top_p),
        effort=request.effort or DEFAULT_EFFORT,
        answer_within=within,
    )
