"""The embedded engine's process: llama.cpp behind HTTP on 127.0.0.1. `local` starts and ends it.

    python -m ouzel.engines.worker

stdin    one line of JSON: what to load, how, and the key that every request must send. After it
         nothing comes; stdin stays open as long as the parent lives, and its end ends this process.
stdout   a line of JSON for each change of state: started (with devices), loading, ready (with the
         address), or failed (with the reason).
stderr   the engine's log: errors only, since warnings of llama.cpp may repeat what a client sent.

The key comes neither in an argument nor in the environment: other users can read the one, and
child processes inherit the other. Nothing of ours is imported here, and llama.cpp only by `main`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import IO, Any, Final

LOG_LIMIT: Final = 4 * 2**20
"""Bytes after which the log is begun anew; the one before is kept beside it."""

LOG_CHECK: Final = 10.0
"""Seconds between two looks at the log's size."""

ERRORS_ONLY: Final = 1
"""llama.cpp's verbosity. From 2 (warnings) on, it logs refused requests with their content."""

SPIN: Final = "1000"
"""Rounds that libgomp's threads spin at a barrier before they sleep. Its default lets them spin
for milliseconds; when anything else wants a core, decoding then falls to a tenth."""

NICENESS: Final = 2
"""The API process goes a little before: it needs little, and its clients wait for it. With more,
whatever else is busy on the machine would take the cores away from the engine."""

OOM_SCORE: Final = "800"
"""Short of memory, the kernel ends this process, which is started again, rather than another."""

PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Serve until stdin ends. Never returns."""
    report = _take_stdout()
    _be_a_good_child()
    try:
        import xllamacpp
    except (ImportError, OSError) as error:
        _say(report, state="failed", reason=f"xllamacpp cannot be loaded: {error}")
        os._exit(1)
    _say(
        report,
        state="started",
        library=xllamacpp.__version__,
        devices=[_device(each) for each in xllamacpp.get_device_info()],
    )
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):  # the parent is gone, or changed its mind
        os._exit(0)
    settings = json.loads(line)
    _say(report, state="loading")
    try:
        # Holds the interpreter's lock until the weights are loaded: nothing of Python runs
        # meanwhile, no thread and no signal handler.
        server = xllamacpp.Server(_parameters(xllamacpp, settings))
        address = server.listening_address
    except Exception as error:  # whatever a C++ library throws; the parent is told
        _say(report, state="failed", reason=str(error))
        os._exit(1)
    _say(report, state="ready", address=address)
    _wait_for_the_end(Path(settings["log"]))
    os._exit(0)  # at once: threads that compute are not waited for


def _take_stdout() -> IO[str]:
    """Keep stdout for reports; whatever else prints there goes to the log."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return report


def _say(report: IO[str], **fields: object) -> None:
    try:
        report.write(json.dumps(fields) + "\n")
        report.flush()
    except OSError:  # nobody listens any more
        os._exit(0)


def _be_a_good_child() -> None:
    """Live and die with the parent, and let it go first."""
    # Ctrl-C and the service manager signal the whole group; the parent ends its answers first.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    if sys.platform == "linux":
        # The kernel's promise holds also while llama.cpp loads and no Python runs. It is given
        # when the parent's *thread* that started us ends: `local` starts us from the thread of
        # its event loop. Had the parent died before this line, stdin would be at its end.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):  # raising one's own score is allowed, /proc may be shut
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    os.nice(NICENESS)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN)  # read when libgomp is loaded
    # An abort would otherwise start a debugger on us, if there is one, and hang in it.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")


def _device(info: dict[str, Any]) -> dict[str, object]:
    kind = info["type"].name.removeprefix("GGML_BACKEND_DEVICE_TYPE_").lower()
    return {"name": info["description"] or info["name"], "kind": kind, "free": info["memory_free"]}


def _parameters(xllamacpp: Any, settings: dict[str, Any]) -> Any:
    """llama.cpp's parameters for the parent's settings. `plan` is an `EnginePlan`."""
    plan = settings["plan"]
    params = xllamacpp.CommonParams()
    params.model.path = settings["weights"]
    params.model_alias = {settings["name"]}
    params.api_keys = [settings["key"]]
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # the system picks a free one, and the server says which
    params.n_threads_http = settings["connections"]
    params.ui = False
    params.verbosity = ERRORS_ONLY
    params.use_jinja = True
    params.cpuparams.n_threads = plan["threads"]
    params.cpuparams_batch.n_threads = plan["threads"]
    params.n_parallel = plan["slots"]
    # Each slot has a cache of its own. In a shared one, an answer that finds it full ends all
    # other answers too.
    params.kv_unified = False
    params.n_ctx = plan["slots"] * plan["context"]
    params.n_batch = plan["batch"]
    params.n_ubatch = plan["step"]
    params.n_gpu_layers = plan["gpu_layers"]
    params.fit_params = plan["fit"]
    params.cache_prompt = True
    params.cache_ram_mib = plan["prompt_cache"]
    params.slot_save_path = settings["prefixes"]  # with the slash that llama.cpp does not add
    params.cache_idle_slots = False  # idle slots keep their conversations themselves
    return params


def _wait_for_the_end(log: Path) -> None:
    """Return when the parent closes stdin or is gone; keep the log bounded meanwhile."""
    while True:
        readable, _, _ = select.select([0], [], [], LOG_CHECK)
        if readable and not os.read(0, 4096):
            return
        if os.fstat(2).st_size > LOG_LIMIT:
            begin_log(log)


def begin_log(log: Path) -> None:
    """Keep the log as `….1` and write on into a new one."""
    with contextlib.suppress(OSError):  # a full or vanished disk is no reason to end answers
        log.replace(log.with_name(log.name + ".1"))
        fresh = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(fresh, 2)
        os.dup2(fresh, 1)
        os.close(fresh)


if __name__ == "__main__":
    main()
