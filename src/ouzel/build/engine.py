"""Settings -> the engine that they ask for, weights fetched and checked.

A script, a server elsewhere, or weights in the embedded engine: exactly one of them. Nothing
here starts anything but downloads; `serving` starts the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from ouzel.build.report import Report
from ouzel.config import Settings
from ouzel.core.contracts import Capability, Engine, ToolStyle
from ouzel.core.errors import OuzelError
from ouzel.core.request import Sampling
from ouzel.core.turns import Turn
from ouzel.engines.local import AS_THE_API, LocalEngine, Overrides
from ouzel.engines.scripted import ScriptedEngine, ScriptError, load_script
from ouzel.engines.upstream import Timeouts
from ouzel.engines.weights import (
    Catalogue,
    NotPulled,
    ResolvedModel,
    load_catalogue,
    pull,
    resolve,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be started.

    Args:
        starting: what start-up says while the engine comes up.
        aliases: further names under which its model is served.
    """

    engine: Engine
    starting: str
    aliases: tuple[str, ...]


class PlanError(OuzelError):
    """The settings name an engine that cannot be made."""


def plan_engine(settings: Settings, report: Report, warm: Sequence[Turn] = ()) -> Plan:
    """The engine for these settings, not yet started.

    Args:
        warm: turns whose prompts begin as every request's does, for the embedded engine to read
            before the first request; the most needed first.

    Raises:
        OuzelError: weights cannot be fetched or read, or a script is not right.
    """
    catalogue = load_catalogue(settings.home)
    aliases = catalogue.default_aliases
    if settings.script is not None:
        return _scripted(settings, settings.script, aliases)
    if settings.engine_url is not None:
        return _upstream(settings, settings.engine_url, aliases)
    return _embedded(settings, find_weights(settings, catalogue, report), warm)


def _scripted(settings: Settings, path: Path, aliases: tuple[str, ...]) -> Plan:
    try:
        script = load_script(path)
    except ScriptError as error:
        raise PlanError(str(error)) from error
    style = decided_style(settings)
    if style is not None:
        script = replace(script, tool_style=style)
    return Plan(ScriptedEngine(script), f"Playing the script {path.name}", aliases)


def _upstream(settings: Settings, url: str, aliases: tuple[str, ...]) -> Plan:
    from ouzel.engines.upstream import UpstreamEngine

    engine = UpstreamEngine(
        url,
        key=settings.engine_key,
        model=settings.engine_model,
        context_window=settings.engine_context or None,
        capabilities=_capabilities(settings),
        tool_style=decided_style(settings),
        timeouts=_timeouts(settings),
        retries=settings.engine_retries,
    )
    return Plan(engine, f"Reaching the engine at {url}", aliases)


def _embedded(settings: Settings, weights: ResolvedModel, warm: Sequence[Turn]) -> Plan:
    engine = LocalEngine(
        weights.path,
        served_as=weights.name,
        home=settings.home,
        overrides=Overrides(
            context=settings.context,
            slots=settings.slots,
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
        ),
        timeouts=_timeouts(settings),
        hung_after=settings.hung_after,
        tool_style=decided_style(settings),
        expects=weights.entry.tool_style if weights.entry is not None else None,
        warm=warm,
        defaults=_sampling(weights),
    )
    return Plan(engine, f"Loading {weights.name}", weights.aliases)


def _sampling(weights: ResolvedModel) -> Sampling:
    """What is sampled with where a request leaves it open: as the publisher of the weights does,
    else as the API's reference says."""
    entry = weights.entry
    if entry is None:
        return AS_THE_API
    return Sampling(
        temperature=1.0 if entry.temperature is None else entry.temperature,
        top_p=1.0 if entry.top_p is None else entry.top_p,
    )


def decided_style(settings: Settings) -> ToolStyle | None:
    """How the user says that the model is brought to call tools; None leaves it open."""
    known: tuple[ToolStyle, ...] = get_args(ToolStyle)
    return next((style for style in known if style == settings.tool_style), None)


def _capabilities(settings: Settings) -> frozenset[Capability] | None:
    """What the settings say that the upstream can do; None to find out."""
    known: tuple[Capability, ...] = get_args(Capability)
    named = frozenset(name for name in known if name in settings.engine_capabilities)
    return named or None


def _timeouts(settings: Settings) -> Timeouts:
    return Timeouts(
        connect=settings.connect_timeout,
        first_token=settings.first_token_timeout,
        idle=settings.idle_timeout,
    )


def find_weights(settings: Settings, catalogue: Catalogue, report: Report) -> ResolvedModel:
    """The weights that the settings name, fetched if they are not on disk.

    Raises:
        WeightsError: they are unknown, damaged, or cannot be fetched.
    """
    name = settings.model or catalogue.default.name
    report.step(f"Weights: {name}")
    try:
        found = resolve(name, catalogue, settings.cache, report.download)
    except NotPulled as missing:
        pull(missing.entry, settings.cache, report.download)
        found = resolve(name, catalogue, settings.cache, report.download)
    report.done(found.warning or str(found.path))
    return found
