"""The filter of system calls: its numbers are the kernel's, and its program does what it says.

The program is run here by an interpreter of classic BPF in a few lines; that the kernel accepts and
obeys it is what the escape tests show.
"""

from __future__ import annotations

import errno
import re
import struct
from itertools import product
from pathlib import Path

import pytest

from ouzel.sandbox import seccomp
from ouzel.sandbox.seccomp import Strictness, assemble
from ouzel.sandbox.seccomp_numbers import AUDIT_ARCH, GENERIC, NUMBERS, X86_64

HEADERS = {
    "/usr/include/x86_64-linux-gnu/asm/unistd_64.h": X86_64,
    "/usr/include/asm-generic/unistd.h": GENERIC,
}
FREE = Strictness()
SHARED = Strictness(shared_names=True)
PLAIN = Strictness(shared_names=True, shared_user=True)
OLD = Strictness(shared_names=True, shared_user=True, shared_signals=True)
ALL = (FREE, SHARED, PLAIN, OLD)


@pytest.mark.parametrize("header", HEADERS)
def test_the_numbers_are_the_kernels(header: str) -> None:
    path = Path(header)
    if not path.exists():
        pytest.skip("the kernel's headers are not installed")
    text = path.read_text()
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text))
    known = {name: number for name, number in HEADERS[header].items() if name in found}
    assert len(known) > 80
    assert known == {name: int(found[name]) for name in known}


def _answer(program: bytes, arch: int, number: int, *arguments: int, own_pid: int = 0) -> int:
    """What the kernel would do with a call: 0 to let it pass, an errno, or -1 to kill."""
    filled = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *filled)
    steps = list(struct.iter_unpack("<HBBI", program))
    at = value = 0
    for _ in range(10_000):
        code, yes, no, k = steps[at]
        at += 1
        if code == seccomp.LOAD:
            (value,) = struct.unpack_from("<I", data, k)
        elif code == seccomp.AND:
            value &= k
        elif code == seccomp.ANSWER:
            kind = k & 0xFFFF0000
            named = {seccomp.ALLOW: 0, seccomp.KILL: -1, seccomp.REFUSE: (k & 0xFFFF) or -2}
            return named[kind]
        else:
            tests = {
                seccomp.IF_EQUAL: value == k,
                seccomp.IF_GREATER: value > k,
                seccomp.IF_AT_LEAST: value >= k,
                seccomp.IF_BITS: bool(value & k),
            }
            at += yes if tests[code] else no
    raise AssertionError("the program does not end")


def _asked(
    name: str, *arguments: int, strictness: Strictness = FREE, machine: str = "x86_64"
) -> int:
    program = assemble(strictness, machine).code
    return _answer(program, AUDIT_ARCH[machine], NUMBERS[machine][name], *arguments)


@pytest.mark.parametrize(("strictness", "machine"), list(product(ALL, NUMBERS)))
def test_each_call_that_is_refused_outright_is(strictness: Strictness, machine: str) -> None:
    program = assemble(strictness, machine)
    assert len(program.code) // 8 < 4096  # the kernel takes no longer one
    for rule in seccomp.rules(strictness):
        if not rule.tests and rule.call in NUMBERS[machine]:
            number = NUMBERS[machine][rule.call]
            said = _answer(program.code, AUDIT_ARCH[machine], number)
            assert said == (rule.answer or -2), rule.call


def test_ordinary_calls_pass() -> None:
    program = assemble(OLD, "x86_64").code
    names = {"read": 0, "write": 1, "mmap": 9, "execve": 59, "futex": 202, "openat": 257}
    for number in (*names.values(), 39, 96, 231, 318, 334, 449, 456):
        assert _answer(program, AUDIT_ARCH["x86_64"], number) == 0


@pytest.mark.parametrize("machine", NUMBERS)
def test_foreign_and_future_calls(machine: str) -> None:
    program = assemble(FREE, machine).code
    arch = AUDIT_ARCH[machine]
    assert _answer(program, 0x40000003, 1) == -1  # 32-bit x86
    assert _answer(program, arch, 0x40000000 + 1) == -1
    assert _answer(program, arch, 457) == errno.ENOSYS
    assert _answer(program, arch, 0x3FFFFFFF) == errno.ENOSYS


@pytest.mark.parametrize("machine", NUMBERS)
@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("clone", (0x11,), 0),
        ("clone", (0x3D0F00,), 0),
        ("clone", (0x10000011,), errno.EPERM),
        ("clone", (0x40000000,), errno.EPERM),
        ("clone", (0x02000000,), errno.EPERM),
        ("socket", (1, 1), 0),
        ("socket", (1, 0o2004001), 0),
        ("socket", (1, 2), 0),
        ("socket", (2, 1), errno.ENETUNREACH),
        ("socket", (1 | 1 << 40, 1), 0),
        ("socket", (10, 2), errno.ENETUNREACH),
        ("socket", (16, 3), errno.ENETUNREACH),
        ("socketpair", (1, 1), 0),
        ("personality", (0,), 0),
        ("personality", (0xFFFFFFFF,), 0),
        ("personality", (0x40000,), errno.EPERM),
        ("ioctl", (1, 0x5401), 0),
        ("ioctl", (1, 0x5412), errno.EPERM),
        ("ioctl", (1, 0x5412 | 1 << 32), errno.EPERM),
        ("ioctl", (1, 0x541C), errno.EPERM),
        ("mknodat", (0, 0, 0o100644), 0),
        ("mknodat", (0, 0, 0o010644), 0),
        ("mknodat", (0, 0, 0o020644), errno.EPERM),
        ("mknodat", (0, 0, 0o060644), errno.EPERM),
        ("prlimit64", (0, 7), 0),
        ("prlimit64", (77, 7), 0),
        ("prlimit64", (0, 4), errno.EPERM),
        ("setrlimit", (4,), errno.EPERM),
    ],
)
def test_calls_that_are_looked_at(
    machine: str, name: str, arguments: tuple[int, ...], said: int
) -> None:
    assert _asked(name, *arguments, machine=machine) == said


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("socket", (1, 1), 0),
        ("socket", (1, 5), 0),
        ("socket", (1, 2), errno.ENETUNREACH),
        ("socket", (1, 3), errno.ENETUNREACH),
        ("socketpair", (1, 2), errno.ENETUNREACH),
        ("connect", (3,), errno.EPERM),
        ("prlimit64", (0, 7), 0),
        ("prlimit64", (77, 7), errno.EPERM),
        ("setpriority", (0, 0), 0),
        ("setpriority", (0, 77), errno.EPERM),
        ("setpriority", (2, 0), errno.EPERM),
        ("sched_setaffinity", (0,), 0),
        ("sched_setaffinity", (77,), errno.EPERM),
        ("fcntl", (3, 2), 0),
        ("fcntl", (3, 8), errno.EPERM),
        ("fcntl", (3, 15), errno.EPERM),
        ("ioctl", (3, 0x8901), errno.EPERM),
        ("ioctl", (3, 0x5412), errno.EPERM),
        ("inotify_add_watch", (3,), errno.EPERM),
    ],
)
def test_calls_that_are_looked_at_without_namespaces(
    name: str, arguments: tuple[int, ...], said: int
) -> None:
    for strictness in (SHARED, PLAIN, OLD):
        assert _asked(name, *arguments, strictness=strictness) == said


def test_modes_and_owners_stay_where_the_user_is_the_servers() -> None:
    for name in ("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "utimensat"):
        assert _asked(name, strictness=PLAIN) == -2  # answered with "done", and not done
        assert _asked(name, strictness=SHARED) == 0
    assert _asked("setxattr", strictness=PLAIN) == errno.EOPNOTSUPP


def test_signals_go_to_the_own_process_only_where_nothing_else_keeps_them_in() -> None:
    program = assemble(OLD, "x86_64")
    raw = bytearray(program.code)
    for index in program.own_pid_at:
        struct.pack_into("<I", raw, index * 8 + 4, 4711)
    arch = AUDIT_ARCH["x86_64"]
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        assert _answer(bytes(raw), arch, X86_64[name], 4711) == 0
        assert _answer(bytes(raw), arch, X86_64[name], 4712) == errno.EPERM
        assert _answer(bytes(raw), arch, X86_64[name], 0xFFFFFFFF) == errno.EPERM
    assert _answer(bytes(raw), arch, X86_64["tkill"], 4711) == errno.EPERM
    assert _asked("kill", 4712, strictness=PLAIN) == 0
