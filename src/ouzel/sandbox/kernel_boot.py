"""What a kernel runs first, inside the jail and the interpreter's own environment.

It is handed to Python as text, imports nothing of Ouzel's, and trusts nobody: all that comes after
it is the model's code, which may change whatever was set here. It makes ipykernel listen in a
folder, plots come as pictures, tables and errors as short plain text; and it imports the big
packages beside the first cell.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

WORK = "/mnt/data"

MOST_TEXT = 2**20
"""Characters of one message; far more than is shown to anybody."""

MOST_ERROR = 2**14
MOST_LINES = 20
"""Characters of each text of an error, and how many of them: one that holds all of a table must not
make a message that is too long to be taken."""

_PATH_FUNCTIONS = (
    "access chdir chmod link listdir lstat mkdir open readlink remove rename replace rmdir scandir "
    "stat symlink truncate unlink utime"
)

_PICTURES = "figure.dpi: 100\nfigure.figsize: 7, 4.5\nfigure.max_open_warning: 0\n"


def main(folder: Path, key: str, preload: Sequence[str]) -> None:
    """Serve cells until the process is ended.

    Args:
        folder: where the sockets `k-1` (shell), `k-2` (control) and `k-3` (iopub) shall be, and
            other things that packages want to write.
        key: signs messages.
        preload: modules to import as soon as the kernel listens.
    """
    if not Path(WORK).exists():
        _show_work(str(Path.cwd()))
    _copy_fonts(folder)
    (folder / "ipython").mkdir(exist_ok=True)
    sys.meta_path.insert(0, _WhenPandasComes())
    # Nobody debugs here, and it takes a tenth of the time to start.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    kernelapp: Any = importlib.import_module("ipykernel.kernelapp")
    # Its way of hearing child processes is a TCP port, and there is no network here.
    thread = kernelapp.IOPubThread
    kernelapp.IOPubThread = lambda *args, **options: thread(*args, **{**options, "pipe": False})
    os.register_at_fork(after_in_child=_plain_streams)
    app = _quiet(kernelapp.IPKernelApp).instance(config=_config(folder, key))
    app.initialize([])
    shell = app.shell
    app.session.pack = functools.partial(_pack, app.session.pack)
    app.session.msg = functools.partial(_short_message, app.session.msg)
    _write_in_sips(type(sys.stdout))
    app.kernel.raw_input = app.kernel.getpass = _refuse_input
    # `exit()` ends a cell, as an exception does, not the kernel.
    shell.ask_exit = _leave
    shell.showtraceback = functools.partial(_short_traceback, shell, shell.showtraceback)
    threading.Thread(target=_preload, args=(app.kernel, preload), daemon=True).start()
    app.start()


def _plain_streams() -> None:
    """Child processes write to the descriptors, where the kernel hears them, too."""
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115


def _quiet(base: type) -> Any:
    """An application without heartbeat and connection file: the server sees the process itself."""

    def nothing(self: object) -> None:
        """Left out."""

    left_out = ("init_heartbeat", "write_connection_file", "init_connection_file")
    return type("App", (base,), dict.fromkeys(left_out, nothing))


def _config(folder: Path, key: str) -> Any:
    config = importlib.import_module("traitlets.config").Config()
    app = config.IPKernelApp
    app.transport, app.ip = "ipc", str(folder / "k")
    app.shell_port, app.control_port, app.iopub_port, app.stdin_port, app.hb_port = 1, 2, 3, 4, 5
    app.ipython_dir = str(folder / "ipython")
    app.log_level, app.quiet, app.matplotlib = 50, True, None
    config.Session.key = key.encode()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.xmode = "Plain"
    config.IPCompleter.use_jedi = False
    config.InlineBackend.print_figure_kwargs = {"bbox_inches": "tight"}
    return config


def _preload(kernel: Any, modules: Sequence[str]) -> None:
    """Import them; a cell that wants one meanwhile waits for this import, and others do not."""
    for name in modules:
        # What is wrong with it, if anything, the cell that wants it will say.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    kernel.session.send(kernel.iopub_socket, "ouzel_preloaded", {})


def _pack(pack: Callable[[Any], bytes], message: Any) -> bytes:
    """JSON also of text with halves of characters, which ASCII has a way to write."""
    try:
        return pack(message)
    except UnicodeError:
        return json.dumps(message, default=str).encode()


def _write_in_sips(stream: type) -> None:
    """Have who writes faster than it is sent wait for that, not fill the memory."""
    write: Callable[[Any, str], int] = stream.write  # type: ignore[attr-defined]

    def and_wait(self: Any, text: str) -> int:
        written = write(self, text)
        self.unsent = getattr(self, "unsent", 0) + len(text)
        if self.unsent > MOST_TEXT:
            self.unsent = 0
            self.flush()
        return written

    stream.write = and_wait  # type: ignore[attr-defined]


def _short_message(make: Callable[..., Any], kind: str, content: Any = None, **rest: Any) -> Any:
    """Of what was written at once, only the beginning: the server drops messages that are long."""
    if kind == "stream" and isinstance(text := content.get("text"), str):
        content = {**content, "text": text[:MOST_TEXT]}
    elif kind in ("error", "execute_reply") and content.get("status", "error") == "error":
        names = {name: _ends(str(content.get(name, ""))) for name in ("ename", "evalue")}
        lines = [_ends(str(line)) for line in list(content.get("traceback") or ())[-MOST_LINES:]]
        content = {**content, **names, "traceback": lines}
    return make(kind, content, **rest)


def _ends(text: str) -> str:
    """Of a long text its beginning and its end: where an error came from, and what it is."""
    half = MOST_ERROR // 2
    return text if len(text) <= MOST_ERROR else f"{text[:half]}...{text[-half:]}"


def _leave(*_: object) -> None:
    raise SystemExit("exit() ends this cell; the interpreter goes on")


def _short_traceback(shell: Any, show: Callable[..., None], *args: Any, **options: Any) -> None:
    """As the shell would, except that SystemExit comes without advice for people at a terminal."""
    error = sys.exc_info()[1]
    if isinstance(error, SystemExit):
        shell._showtraceback(type(error), error, [f"SystemExit: {error}"])
    else:
        show(*args, **options)


def _refuse_input(*_: object, **__: object) -> str:
    raise EOFError("nobody is there to answer input(); put the value into the code")


def _copy_fonts(folder: Path) -> None:
    """matplotlib wants to write where it reads its settings and list of fonts."""
    mine = folder / "matplotlib"
    mine.mkdir(exist_ok=True)
    for known in Path(os.environ.pop("OUZEL_FONTS")).glob("fontlist-*.json"):
        shutil.copyfile(known, mine / known.name)
    (mine / "matplotlibrc").write_text(_PICTURES)
    os.environ["MPLCONFIGDIR"] = str(mine)


class _WhenPandasComes(importlib.abc.MetaPathFinder):
    """Sets pandas' display once it is imported, without importing it for that."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """pandas' own specification, with `_display` to be run after it."""
        if fullname != "pandas":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def and_display(module: ModuleType) -> None:
            execute(module)
            _display(module)

        loader.exec_module = and_display
        return spec


def _display(pandas: Any) -> None:
    for name, value in (
        ("display.width", 120),
        ("display.max_columns", 20),
        ("display.max_colwidth", 60),
        ("display.show_dimensions", "truncate"),
        # Without pictures of tables in HTML, which nobody sees.
        ("display.notebook_repr_html", False),
    ):
        pandas.set_option(name, value)


def _show_work(work: str) -> None:
    """Where nothing can be mounted: let Python's own functions find the work folder at `WORK`.

    Packages that open files by themselves do not know of it; names without a folder always work.
    """

    def real(path: Any) -> Any:
        if isinstance(path, str | os.PathLike):
            text = os.fspath(path)
            if isinstance(text, str) and (text == WORK or text.startswith(f"{WORK}/")):
                return work + text[len(WORK) :]
        return path

    def finding(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            return function(*map(real, args), **options)

        return call

    builtins.open = io.open = finding(io.open)
    for name in _PATH_FUNCTIONS.split():
        setattr(os, name, finding(getattr(os, name)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), os.environ.pop("OUZEL_KERNEL_KEY"), sys.argv[2:])
