"""The served model, under each of its names, as `/v1/models` writes it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ouzel.core.contracts import EngineInfo


def model(info: EngineInfo, name: str) -> dict[str, Any]:
    """One model object.

    Args:
        info: what the engine that serves it says of itself.
        name: the model's own name or an alias; it becomes the object's id.
    """
    return {
        "id": name,
        "object": "model",
        "created": int(info.created_at),
        "owned_by": "ouzel",
    }


def models(info: EngineInfo, aliases: Iterable[str] = ()) -> dict[str, Any]:
    """The list of models: the served one by its own name first, then its aliases."""
    names = dict.fromkeys((info.model, *aliases))
    return {"object": "list", "data": [model(info, name) for name in names]}
