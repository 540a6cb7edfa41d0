"""The settings themselves: one declaration each, and what makes them valid together.

Each setting is one field of `Settings`, with its type, default, help and bounds. The flags of
`ouzel serve`, the `OUZEL_…` variables, the keys of the TOML file and `docs/settings.md` all come
from these declarations. Where values come from is `reading.py`'s business.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import re
import types
import typing
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ouzel.config.declaring import (
    ADDRESS,
    CODE,
    DEFAULT_SOURCE,
    ENGINE,
    KEEPING,
    LIMIT,
    MODEL,
    PREFIX,
    STATE,
    UPSTREAM,
    Meta,
    SettingsError,
    home_folder,
    text_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be configured. Valid once made: bounds and cross checks run on creation.

    Raises:
        SettingsError: a value is out of bounds, or two values contradict each other.
    """

    host: str = ADDRESS("127.0.0.1", "Address to listen on; another than loopback needs a key.")
    port: int = ADDRESS(8321, "Port to listen on; 0 picks a free one.", low=0, high=65535)
    api_key: str | None = ADDRESS(
        None, "Bearer key that clients must send. As a flag, other users see it.", secret=True
    )

    home: Path = STATE(
        Path("~/.ouzel"), "Folder for all state.", factory=lambda: home_folder(".ouzel")
    )
    cache: Path = STATE(
        Path("~/.cache/ouzel"),
        "Folder for downloads.",
        factory=lambda: home_folder(".cache/ouzel"),
    )
    log_level: str = STATE(
        "info", "How much is logged.", choices=("debug", "info", "warning", "error")
    )

    model: str | None = MODEL(
        None,
        "Weights to serve: a catalogue name, an alias, or the path of a GGUF file.",
        shown="the catalogue's default",
    )
    script: Path | None = MODEL(None, "Serve this scripted engine's script instead of weights.")
    context: int = MODEL(
        0, "Context of one request; 0 fits it to the machine.", unit="tokens", low=0, high=2**24
    )

    tool_style: str = MODEL(
        "auto",
        "How the model is brought to call tools; auto: as the catalogue says and a trial shows.",
        choices=("auto", "native", "guided"),
    )

    slots: int = ENGINE(0, "Requests decoded at once; 0 fits the machine.", low=0, high=256)
    threads: int = ENGINE(0, "Threads of the engine; 0 fits the machine.", low=0, high=1024)
    gpu_layers: int = ENGINE(
        -1, "Layers kept on the GPU; -1 lets the engine choose.", low=-1, high=1000
    )
    hung_after: float = ENGINE(
        15.0,
        "Silence after which an engine process counts as hung and is restarted.",
        unit="seconds",
        low=2.0,
        high=3600,
    )

    engine_url: str | None = UPSTREAM(
        None, "Use this Chat Completions server instead of weights of our own."
    )
    engine_key: str | None = UPSTREAM(None, "Bearer key for engine_url.", secret=True)
    engine_model: str | None = UPSTREAM(None, "Model to ask engine_url for.", shown="its only one")
    engine_context: int = UPSTREAM(
        0, "Context of engine_url; 0 asks it.", unit="tokens", low=0, high=2**24
    )
    engine_capabilities: tuple[str, ...] = UPSTREAM(
        (),
        "What engine_url can do, separated by commas; empty probes it.",
        choices=(
            *("logprobs", "logit_bias", "seed", "stop", "penalties"),
            *("grammar", "llguidance", "json_schema", "opening", "tools", "images"),
        ),
        shown="probed",
    )
    connect_timeout: float = UPSTREAM(
        5.0, "Longest wait for a connection to engine_url.", unit="seconds", low=0.01, high=600
    )
    engine_retries: int = UPSTREAM(
        2, "Tries again where engine_url failed before it said anything.", low=0, high=10
    )

    answer_within: float = LIMIT(
        60.0,
        "Time in which an answer should be whole, thinking included; 0 sets no limit.",
        unit="seconds",
        low=0,
        high=86400,
    )
    first_token_timeout: float = LIMIT(
        600.0, "Longest wait for an answer's first token.", unit="seconds", low=0.01, high=86400
    )
    idle_timeout: float = LIMIT(
        120.0, "Longest silence in the middle of an answer.", unit="seconds", low=0.01, high=86400
    )
    max_requests: int = LIMIT(256, "Requests under way at once.", low=1, high=100_000)
    max_body_mb: int = LIMIT(32, "Largest request body.", unit="MB", low=1, high=1024)
    background_at_once: int = LIMIT(4, "Background responses made at once.", low=1, high=10_000)
    background_waiting: int = LIMIT(
        1000, "Background responses that may wait.", low=1, high=1_000_000
    )
    background_within: float = LIMIT(
        3600.0,
        "Time that a background response gets; 0 sets no limit.",
        unit="seconds",
        low=0,
        high=604_800,
    )
    keep_alive: float = LIMIT(
        15.0, "Pause between comments on a silent stream.", unit="seconds", low=0.01, high=3600
    )
    shutdown_grace: float = LIMIT(
        5.0, "Time that running requests get on shutdown.", unit="seconds", low=0, high=3600
    )

    code_interpreter: str = CODE(
        "auto",
        "Running of model-written code; auto: off, with the reason told, where no sandbox works.",
        choices=("auto", "on", "off"),
    )
    sandbox: str = CODE(
        "auto",
        "How code is kept in; auto takes the strongest way that works here.",
        choices=("auto", "bubblewrap", "landlock"),
    )
    sandbox_group: Path | None = CODE(
        None, "Control group (version 2) below which each sandbox gets one; docs/sandbox.md."
    )
    containers: int = CODE(
        0, "Interpreters that live at once; 0 fits the machine.", low=0, high=10_000
    )
    container_memory_mb: int = CODE(
        1024, "Most memory of one container.", unit="MB", low=1024, high=65536
    )
    container_disk_mb: int = CODE(
        512, "Most that the files of one container take.", unit="MB", low=1, high=1_000_000
    )
    max_file_mb: int = CODE(512, "Largest file that is taken.", unit="MB", low=1, high=1_000_000)
    files_quota_mb: int = CODE(
        10_240, "Most that one owner's files take.", unit="MB", low=1, high=100_000_000
    )

    keep_days: int = KEEPING(
        30,
        "How long responses, stored completions and batches are kept; 0 for ever.",
        unit="days",
        low=0,
        high=36_500,
    )
    sealing_keys: str | None = KEEPING(
        None,
        "Keys for encrypted reasoning instead of the home's own, newest first, comma-separated.",
        secret=True,
    )
    encrypted_reasoning_days: int = KEEPING(
        30,
        "How long encrypted reasoning can be given back; 0 for ever.",
        unit="days",
        low=0,
        high=36_500,
    )
    batch_at_once: int = KEEPING(
        0, "Lines of batches done at once; 0: all slots but one.", low=0, high=10_000
    )

    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Where each setting came from; a name that is missing here has its default."""

    def __post_init__(self) -> None:
        for name, meta in SETTINGS.items():
            _check_bounds(name, meta, getattr(self, name), self.source(name))
        self._check_together()

    def source(self, name: str) -> str:
        """Where the setting came from: `--port`, `OUZEL_PORT`, `FILE: port`, or `default`."""
        return self.sources.get(name, DEFAULT_SOURCE)

    @property
    def max_body_bytes(self) -> int:
        """`max_body_mb` in bytes."""
        return self.max_body_mb * 1024 * 1024

    @property
    def local_url(self) -> str:
        """Where this machine finds a server with these settings, without a path."""
        # Listening everywhere includes loopback; "everywhere" itself is no address to call.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def masked(self) -> tuple[tuple[str, str, str], ...]:
        """Name, value and source of every setting, for people; secrets say only whether set."""
        return tuple(
            (name, self._shown(name, meta), self.source(name)) for name, meta in SETTINGS.items()
        )

    def _shown(self, name: str, meta: Meta) -> str:
        value = getattr(self, name)
        if meta.secret:
            return "none" if value is None else "••••••••"
        if value is None or value == ():
            return meta.shown
        return with_unit(text_of(value), meta)

    def _check_together(self) -> None:
        if self.engine_url is not None and self.script is not None:
            raise SettingsError(
                f"engine_url (from {self.source('engine_url')}) and script (from "
                f"{self.source('script')}) exclude each other; set one of them."
            )
        if self.engine_url is not None:
            _check_url("engine_url", self.engine_url, self.source("engine_url"))
        for name in ("api_key", "engine_key"):
            key = getattr(self, name)
            if key is not None and not re.fullmatch(r"[!-~]+", key):
                raise SettingsError(
                    f"{name} (from {self.source(name)}) must be printable ASCII without spaces, "
                    "since it travels in a header."
                )
        if not self.host or self.host != self.host.strip():
            raise SettingsError(
                f"host (from {self.source('host')}) is empty or has spaces; an address such as "
                "127.0.0.1 is right."
            )
        if self.api_key is None and not is_loopback(self.host):
            raise SettingsError(
                f"host is {self.host} (from {self.source('host')}), which other machines may "
                "reach, but there is no key: set OUZEL_API_KEY to a long secret, or listen on "
                "127.0.0.1."
            )


SETTINGS: dict[str, Meta] = {
    each.name: each.metadata["setting"]
    for each in dataclasses.fields(Settings)
    if "setting" in each.metadata
}
"""Every setting by name, in the order of declaration."""


def with_unit(text: str, meta: Meta) -> str:
    """A value as text with its unit; 0 needs none, and mostly means something else anyway."""
    return f"{text} {meta.unit}" if meta.unit and text != "0" else text


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def flag(name: str) -> str:
    """The flag of `ouzel serve` that sets it."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable that sets it."""
    return PREFIX + name.upper()


def expected(name: str) -> str:
    """What a right value of the setting looks like, for errors, help and docs."""
    meta, kind = SETTINGS[name], kind_of(name)
    if kind is tuple:
        return "any of " + ", ".join(meta.choices) + ", separated by commas"
    if meta.choices:
        return "one of " + ", ".join(meta.choices)
    if kind in (int, float):
        noun = "a whole number" if kind is int else "a number"
        unit = f" of {meta.unit}" if meta.unit else ""
        return f"{noun}{unit} from {meta.low:.10g} to {meta.high:.10g}"
    return "a path" if kind is Path else "text"


@functools.cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(Settings)


def kind_of(name: str) -> type:
    """The setting's type without its `| None`: str, int, float, Path or tuple."""
    hint = _hints()[name]
    if isinstance(hint, types.UnionType):
        hint = next(part for part in hint.__args__ if part is not type(None))
    return cast("type", typing.get_origin(hint) or hint)


def is_optional(name: str) -> bool:
    """Whether the setting may be unset (None)."""
    return isinstance(_hints()[name], types.UnionType)


def _check_bounds(name: str, meta: Meta, value: Any, source: str) -> None:
    # Written so that a NaN fails too: it compares as false with everything.
    if meta.low is not None and meta.high is not None and not meta.low <= value <= meta.high:
        raise wrong(name, value, source)
    given = value if isinstance(value, tuple) else (value,)
    if meta.choices and not set(given) <= set(meta.choices):
        raise wrong(name, text_of(value), source)


def wrong(name: str, value: object, source: str) -> SettingsError:
    """The error for a value that the setting cannot have; never repeats a secret."""
    shown = "the value given" if SETTINGS[name].secret else _shortened(repr(value))
    return SettingsError(f"{name} (from {source}): {shown} is not {expected(name)}.")


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def _check_url(name: str, url: str, source: str) -> None:
    example = "http://127.0.0.1:8000/v1"
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", url):
        # The URL is not repeated: a mistyped one may hold a password.
        raise SettingsError(f"{name} (from {source}) is not a URL such as {example}.")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(
            f"{name} (from {source}) holds a user name or password; put the key into engine_key."
        )
