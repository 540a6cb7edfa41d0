"""Cells in a real kernel: what they say, how they end, and what is kept between them."""

from __future__ import annotations

import asyncio
import struct
import tempfile
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from kernel_kit import ALLOW, LIMITS, interpreter, jail, run, started

from ouzel.sandbox.environment import Interpreter
from ouzel.sandbox.jail import SandboxUnavailable
from ouzel.sandbox.kernel import Kernel, KernelFailed


async def test_what_cells_say_and_keep(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        assert kernel.fresh
        assert (await run(kernel, "x = 20")).status == "ok"
        assert not kernel.fresh
        ran = await run(
            kernel, "import sys\nprint('a', end='')\nprint('b', file=sys.stderr)\nx + 1"
        )
        assert (ran.out, ran.err, ran.result, ran.status) == ("a", "b\n", "21", "ok")
        ran = await run(kernel, "print('hä 😀 \\x1b[31mred\\x1b[0m \\x00 \\ud800')\ndisplay(3)")
        assert ran.out.startswith("hä 😀 red  ")
        assert ran.out.endswith("\n3\n")
        ran = await run(kernel, "import os\nos.system('echo from a shell')\nopen('a.txt', 'w')\n1")
        assert ran.out == "from a shell\n"
        assert (tmp_path / "work" / "a.txt").exists()
        assert (await run(kernel, "open('/mnt/data/a.txt').read()")).result == "''"
        ran = await run(kernel, "import locale\nlocale.getpreferredencoding()")
        assert ran.result == "'utf-8'"


async def test_without_namespaces_the_folder_is_found_by_its_usual_name(tmp_path: Path) -> None:
    try:
        jail("landlock")
    except SandboxUnavailable as reason:
        pytest.skip(reason.message)
    with tempfile.TemporaryDirectory(prefix="ouzel-test-") as folder:
        Path(folder).chmod(0o711)
        async with started(Path(folder), mode="landlock", preload=True) as kernel:
            code = "open('/mnt/data/a.txt', 'w').write('1,2')\nimport os\nos.listdir('/mnt/data')"
            assert (await run(kernel, code)).result == "['a.txt']"
            code = "import pandas as pd, pathlib, tempfile\ntempfile.mkdtemp()\n"
            code += "pathlib.Path('/mnt/data/b').mkdir()\npd.read_csv('/mnt/data/a.txt').columns[1]"
            assert (await run(kernel, code)).result == "'2'"
            ran = await run(kernel, "import matplotlib.pyplot as plt\nplt.plot([1]);")
            assert len(ran.pictures) == 1
            assert (await run(kernel, "while True: pass", within=0.5)).status == "interrupted"
        assert {path.name for path in (Path(folder) / "work").iterdir()} == {"a.txt", "b"}


async def test_errors_have_a_name_and_a_plain_traceback(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        ran = await run(kernel, "def f():\n    raise ValueError('bäd')\nprint('before')\nf()")
        assert (ran.out, ran.end.error) == ("before\n", "ValueError: bäd")
        assert "line 2 in f" in ran.end.traceback
        assert "\x1b" not in ran.end.traceback
        assert (await run(kernel, "x = (")).end.error.startswith("SyntaxError")
        ran = await run(kernel, "input('name?')")
        assert ran.end.error.startswith("EOFError: nobody is there")
        for leave in ("exit()", "quit()", "import sys; sys.exit(3)", "raise SystemExit"):
            ran = await run(kernel, leave)
            assert (ran.status, ran.end.error.split(":")[0]) == ("error", "SystemExit")
        assert (await run(kernel, "f.__name__")).result == "'f'"


async def test_tables_and_pictures(tmp_path: Path) -> None:
    async with started(tmp_path, preload=True) as kernel:
        # Not waited for: the first cell may come before the imports are over.
        ran = await run(kernel, "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})")
        assert ran.result == "   a  b\n0  1  x\n1  2  y"
        wide = "pd.DataFrame([[12345.678] * 9] * 30, columns=[f'column {i}' for i in range(9)])"
        ran = await run(kernel, wide)
        assert max(map(len, ran.result.splitlines())) <= 120
        plot = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.title('T')\nplt.show()"
        ran = await run(kernel, plot)
        (picture,) = ran.pictures
        assert picture.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", picture[16:24])
        assert 500 < width < 900
        assert 300 < height < 600
        # The figure was closed: the next cell begins with an empty one.
        assert (await run(kernel, "len(plt.get_fignums())")).result == "0"
        async with asyncio.timeout(60):
            while not kernel.preloaded:
                await asyncio.sleep(0.05)
        ran = await run(kernel, "import sys\n'numpy' in sys.modules")
        assert ran.result == "True"


async def test_text_comes_while_the_cell_runs(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        code = "import time\nprint('first', flush=True)\nwhile True: time.sleep(0.1)"
        async with aclosing(kernel.execute(code, within=30, allow=ALLOW)) as events:
            async for event in events:
                assert getattr(event, "text", "") == "first\n"
                break
        # Closing interrupted it, and what it knew is there.
        assert kernel.alive
        assert (await run(kernel, "time.__name__")).result == "'time'"


async def test_a_hung_cell_is_interrupted_and_variables_are_kept(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        ran = await run(kernel, "kept = 5\nwhile True: pass", within=0.5)
        assert (ran.status, ran.end.error) == ("interrupted", "it ran longer than 0.5 seconds")
        assert "KeyboardInterrupt" in ran.end.traceback
        assert (await run(kernel, "kept")).result == "5"
        running = asyncio.create_task(run(kernel, "import time\ntime.sleep(60)"))
        await asyncio.sleep(0.3)
        await kernel.interrupt()
        ran = await running
        assert (ran.status, ran.end.error) == ("interrupted", "it was interrupted")
        assert (await run(kernel, "kept")).result == "5"


async def test_who_does_not_heed_an_interrupt_is_killed(tmp_path: Path) -> None:
    code = "import time\nwhile True:\n    try: time.sleep(9)\n    except BaseException: pass"
    async with started(tmp_path) as kernel:
        ran = await run(kernel, code, within=0.3)
        assert ran.status == "died"
        assert "although it was interrupted" in ran.end.error
        again = await run(kernel, "1")
        assert (again.status, again.end.error) == ("died", ran.end.error)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os._exit(3)", "it ended its own process (exit code 3)"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("import ctypes; ctypes.string_at(0)", "segmentation fault"),
    ],
)
async def test_a_dead_kernel_is_noticed(tmp_path: Path, code: str, why: str) -> None:
    async with started(tmp_path) as kernel:
        ran = await run(kernel, f"print('last words', flush=True)\n{code}")
        assert ran.status == "died"
        assert why in ran.end.error
        assert not kernel.alive


async def test_cancelling_the_one_who_waits_ends_the_cell(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        running = asyncio.create_task(run(kernel, "n = 1\nwhile True: pass"))
        await asyncio.sleep(0.3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await run(kernel, "n")).result == "1"


async def test_closing_in_the_middle_of_a_cell_ends_it(tmp_path: Path) -> None:
    async with started(tmp_path) as kernel:
        running = asyncio.create_task(run(kernel, "while True: pass"))
        await asyncio.sleep(0.3)
        await kernel.close()
        ran = await running
        assert (ran.status, ran.end.error) == ("died", "it was closed")


async def test_a_kernel_that_does_not_come_up_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    real = interpreter()
    missing = Interpreter(real.python.with_name("none"), real.folder, real.readable)
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        with pytest.raises(KernelFailed, match="could not be started"):
            await Kernel.start(jail(), missing, work, LIMITS)
        with pytest.raises(KernelFailed, match="not up within 0 seconds"):
            await Kernel.start(jail(), real, work, LIMITS, within=0.01)
        with pytest.raises(KernelFailed, match="could not be started"):
            await Kernel.start(jail(), real, work, replace(LIMITS, memory=20 * 2**20))
        assert not list(Path(short).iterdir())
