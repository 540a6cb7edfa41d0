"""Fixtures that every room's tests may use: the real weights."""

from __future__ import annotations

from pathlib import Path

import pytest


def _weights(name: str) -> Path:
    from ouzel.engines.weights import load_catalogue, pull

    entry = load_catalogue().find(name)
    return pull(entry, Path.home() / ".cache" / "ouzel", lambda progress: None)


@pytest.fixture(scope="session")
def tiny_weights() -> Path:
    """SmolLM2-135M-Instruct on disk, fetched if missing: real, fast, and not clever."""
    return _weights("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def default_weights() -> Path:
    """The default weights on disk, fetched if missing."""
    return _weights("qwen2.5-coder-1.5b-instruct")
