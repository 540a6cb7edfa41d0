"""Which system calls foreign code may not make, as a program that the kernel runs before each.

The program is classic BPF, put together here: a list of what is refused, with a few calls looked
at more closely. What is refused and why is in `RULES`; the rest is an assembler of 40 lines. It is
the same under both modes, with more refused where there are no namespaces (`Strictness`).

A filter sees numbers only, never what a pointer points to; so names of files and addresses of
sockets are somebody else's to check. Nothing here installs it: `inner.py` does.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ouzel.sandbox.seccomp_numbers import AUDIT_ARCH, LAST_KNOWN, NUMBERS, X32_BIT

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
REFUSE: Final = 0x00050000

LOAD: Final = 0x20
IF_EQUAL: Final = 0x15
IF_GREATER: Final = 0x25
IF_AT_LEAST: Final = 0x35
IF_BITS: Final = 0x45
AND: Final = 0x54
ANSWER: Final = 0x06

NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET together."""

OWN_PID: Final = "own pid"
"""Stands for the number of the process that installs the filter; it is filled in there."""


@dataclass(frozen=True, slots=True)
class Strictness:
    """What the filter has to make up for.

    Args:
        shared_names: sockets, processes and files of others can be named, since there are no
            namespaces: connecting and telling others what to do is refused.
        shared_user: the code runs as the user of the server, who owns more than the sandbox:
            changes to a file's mode, owner and times are refused too.
        shared_signals: nothing else keeps signals in; only those to the own process pass.
    """

    shared_names: bool = False
    shared_user: bool = False
    shared_signals: bool = False


@dataclass(frozen=True, slots=True)
class Test:
    """One look at an argument: the low 32 bits, which is what the kernel reads of an int.

    Args:
        argument: 0 to 5.
        among: it has to be one of these, if there are any.
        mask: bits that count for `among`.
        none_of: it may be none of these.
        no_bits: it may have none of these bits set.
    """

    argument: int
    among: tuple[int | str, ...] = ()
    mask: int = 0xFFFFFFFF
    none_of: tuple[int, ...] = ()
    no_bits: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A call, what it is answered with, and the tests that let it pass (all have to)."""

    call: str
    answer: int = errno.EPERM
    tests: tuple[Test, ...] = ()


def _rules(names: str, answer: int = errno.EPERM, *tests: Test) -> tuple[Rule, ...]:
    return tuple(Rule(name, answer, tests) for name in names.split())


RULES: Final[tuple[Rule, ...]] = (
    # The C library falls back to clone, whose flags a filter can see.
    *_rules("clone3", errno.ENOSYS),
    *_rules("clone", errno.EPERM, Test(0, no_bits=NEW_NAMESPACES)),
    *_rules("unshare setns"),
    # Mounts, in their old and new form, and other roots.
    *_rules("mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick"),
    *_rules("mount_setattr swapon swapoff quotactl quotactl_fd acct ustat sysfs"),
    # Other processes' memory and descriptors.
    *_rules("ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise"),
    *_rules("process_mrelease migrate_pages move_pages"),
    # Large, often broken parts of the kernel that a Python does not need.
    *_rules("bpf perf_event_open userfaultfd add_key request_key keyctl vmsplice"),
    *_rules("io_uring_setup io_uring_enter io_uring_register", errno.ENOSYS),
    *_rules("fanotify_init fanotify_mark lookup_dcookie nfsservctl uselib modify_ldt"),
    # Memory that no process shows and no tmpfs counts.
    *_rules("memfd_create memfd_secret", errno.ENOSYS),
    *_rules("shmget shmat shmctl shmdt semget semop semctl semtimedop", errno.ENOSYS),
    *_rules("msgget msgsnd msgrcv msgctl mq_open mq_unlink", errno.ENOSYS),
    *_rules("mbind set_mempolicy set_mempolicy_home_node"),
    # Files past their names, and devices.
    *_rules("open_by_handle_at name_to_handle_at"),
    *_rules("mknod", errno.EPERM, Test(1, (0, 0o100000, 0o010000, 0o140000), 0o170000)),
    *_rules("mknodat", errno.EPERM, Test(2, (0, 0o100000, 0o010000, 0o140000), 0o170000)),
    # The machine itself.
    *_rules("kexec_load kexec_file_load init_module finit_module delete_module create_module"),
    *_rules("get_kernel_syms query_module reboot syslog settimeofday clock_settime adjtimex"),
    *_rules("clock_adjtime iopl ioperm sethostname setdomainname vhangup _sysctl"),
    # Asking is allowed, and so is what everybody has anyway.
    *_rules("personality", errno.EPERM, Test(0, (0, 0xFFFFFFFF))),
    # RLIMIT_CORE stays 1: only that keeps a crash from starting the host's program for crashes.
    *_rules("prlimit64", errno.EPERM, Test(1, none_of=(4,))),
    *_rules("setrlimit", errno.EPERM, Test(0, none_of=(4,))),
    # Typing into a terminal (TIOCSTI), pasting into one (TIOCLINUX).
    *_rules("ioctl", errno.EPERM, Test(1, none_of=(0x5412, 0x541C))),
)


def rules(strictness: Strictness) -> tuple[Rule, ...]:
    """All rules for a sandbox, in the order in which they are tried."""
    kinds: tuple[int | str, ...] = (1, 5) if strictness.shared_names else (1, 2, 5)
    found = [
        *RULES,
        # Unix sockets only, and without namespaces only those that cannot name their receiver.
        *_rules("socket socketpair", errno.ENETUNREACH, Test(0, (1,)), Test(1, kinds, 0xF)),
    ]
    if strictness.shared_names:
        found += _rules("connect", errno.EPERM)
        found += _rules("inotify_add_watch")
        # Everybody's limits, priorities and processors, by number: only one's own.
        found += _rules("prlimit64 sched_setaffinity", errno.EPERM, Test(0, (0, OWN_PID)))
        # Threads do this to themselves by their number, which no filter knows; ZeroMQ gives up
        # where it is refused. So it is answered with "done", and not done.
        found += _rules("sched_setparam sched_setscheduler sched_setattr", 0, Test(0, (0,)))
        found += _rules("setpriority", errno.EPERM, Test(0, (0,)), Test(1, (0,)))
        found += _rules("ioprio_set", errno.EPERM, Test(0, (1,)), Test(1, (0,)))
        # Having signals sent to others: F_SETOWN, F_SETSIG, F_SETOWN_EX.
        found += _rules("fcntl", errno.EPERM, Test(1, none_of=(8, 10, 15)))
        found += _rules("ioctl", errno.EPERM, Test(1, none_of=(0x8901, 0x8902)))
    if strictness.shared_user:
        # Answered with "done": much of Python's library sets modes and times as it copies.
        found += _rules("chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat", 0)
        found += _rules("utime utimes futimesat utimensat", 0)
        found += _rules("setxattr lsetxattr fsetxattr", errno.EOPNOTSUPP)
        found += _rules("removexattr lremovexattr fremovexattr", errno.EOPNOTSUPP)
    if strictness.shared_signals:
        found += _rules("kill tgkill rt_sigqueueinfo rt_tgsigqueueinfo", 1, Test(0, (OWN_PID,)))
        found += _rules("tkill pidfd_send_signal")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Program:
    """What the kernel runs.

    Args:
        code: instructions, 8 bytes each.
        own_pid_at: instructions whose constant has to become the process's own number.
    """

    code: bytes
    own_pid_at: tuple[int, ...]


Step = tuple[int, int, int, int | str]
"""An instruction: its code, how many to skip if true and if false, and its constant."""


def knows(machine: str) -> bool:
    """Whether there is a filter for this kind of machine (`platform.machine()`)."""
    return machine in NUMBERS


def assemble(strictness: Strictness, machine: str = "") -> Program:
    """The program for a sandbox.

    Args:
        machine: as `platform.machine()` says; this one if empty.

    Raises:
        KeyError: there is no filter for it, see `knows`.
    """
    machine = machine or platform.machine()
    numbers = NUMBERS[machine]
    steps: list[Step] = [
        (LOAD, 0, 0, 4),
        # Another machine's calls have other numbers: nobody has business with them.
        (IF_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (ANSWER, 0, 0, KILL),
        (LOAD, 0, 0, 0),
        (IF_AT_LEAST, 0, 1, X32_BIT),
        (ANSWER, 0, 0, KILL),
        (IF_GREATER, 0, 1, LAST_KNOWN),
        (ANSWER, 0, 0, REFUSE | errno.ENOSYS),
    ]
    for rule in rules(strictness):
        if rule.call in numbers:
            steps += _steps(rule, numbers[rule.call])
    steps.append((ANSWER, 0, 0, ALLOW))
    own = tuple(index for index, step in enumerate(steps) if step[3] == OWN_PID)
    code = b"".join(
        struct.pack("<HBBI", kind, yes, no, 0 if value == OWN_PID else value)
        for kind, yes, no, value in steps
    )
    return Program(code, own)


def _steps(rule: Rule, number: int) -> list[Step]:
    """Skips itself unless the call is meant; the number of the call is loaded before and after."""
    refuse: Step = (ANSWER, 0, 0, REFUSE | rule.answer)
    if not rule.tests:
        return [(IF_EQUAL, 0, 1, number), refuse]
    body: list[Step] = []
    for test in rule.tests:
        # The low half of an argument, on machines that put it first.
        body.append((LOAD, 0, 0, 16 + 8 * test.argument))
        body += _look(test, refuse)
    body.append((LOAD, 0, 0, 0))
    return [(IF_EQUAL, 0, len(body), number), *body]


def _look(test: Test, refuse: Step) -> list[Step]:
    if test.no_bits:
        return [(IF_BITS, 0, 1, test.no_bits), refuse]
    if test.none_of:
        left = len(test.none_of)
        looks = _compare(test.none_of)
        # A hit goes to the refusal, the last miss past it.
        return [
            *((kind, left - 1 - at, int(at == left - 1), value) for at, (kind, value) in looks),
            refuse,
        ]
    left = len(test.among)
    looks = _compare(test.among)
    found: list[Step] = [(kind, left - at, 0, value) for at, (kind, value) in looks]
    masked: list[Step] = [] if test.mask == 0xFFFFFFFF else [(AND, 0, 0, test.mask)]
    return [*masked, *found, refuse]


def _compare(values: Sequence[int | str]) -> list[tuple[int, tuple[int, int | str]]]:
    return [(at, (IF_EQUAL, value)) for at, value in enumerate(values)]
