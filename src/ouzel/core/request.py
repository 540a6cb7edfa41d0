"""What was asked, validated, the same for every protocol.

A `Request` is made by a reader in `api` and never changes afterwards. It knows no wire JSON, and
nothing of who asks: the owner travels beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ouzel.core.items import Item

Protocol = Literal["chat", "responses"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is picked; None leaves a knob at the engine's own default.

    Args:
        temperature: 0 (greedy) to 2.
        top_p: nucleus mass, 0 to 1.
        presence_penalty: -2 to 2.
        frequency_penalty: -2 to 2.
        seed: makes sampling repeatable on engines that support it.
        stop: up to four sequences that end the answer; they are not part of it.
        logit_bias: token id -> bias, -100 to 100.
        top_logprobs: None asks for no log-probabilities; 0 to 20 asks for the token's own and
            that many alternatives.
    """

    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[str, float] = field(default_factory=dict)
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the server.

    Args:
        protocol: which API it came through; decides nothing but how the answer is written.
        model: the name the client used, resolved against the served names by `answer`.
        input: the new items, oldest first; history is found through `previous_id`.
        instructions: system-level text for this request only, not inherited by later ones.
        max_output_tokens: upper bound for everything the model generates, thinking included.
        previous_id: the stored run that this one continues.
        store: keep the run, so that it can be fetched and continued.
        metadata: up to 16 string pairs, kept and given back.
        labels: parameters without effect on the answer that are echoed to the client (`user`,
            `safety_identifier`, `prompt_cache_key`, `service_tier`, ...).
    """

    protocol: Protocol
    model: str
    input: tuple[Item, ...]
    instructions: str | None = None
    sampling: Sampling = Sampling()
    max_output_tokens: int | None = None
    previous_id: str | None = None
    store: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
