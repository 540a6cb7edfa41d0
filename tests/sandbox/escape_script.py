"""What an attacker tries from inside; run in the sandbox, told where everything is in `told.json`.

Each attempt is a function; what comes of it is one word: `done`, or the name of the error. A word
such as EINVAL or EFAULT means that the kernel got as far as to look at the arguments. The standard
library only, and nothing of ours: the sandbox has nothing else.
"""

# ruff: noqa
import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

TOLD = json.loads(Path("told.json").read_text())
NUMBERS = TOLD["numbers"]
libc = ctypes.CDLL(None, use_errno=True)
attempts = {}


def attempt(function):
    attempts[function.__name__] = function
    return function


def call(name, *arguments):
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def plain(name, *arguments):
    attempts[name] = lambda: call(name, *arguments)


@attempt
def read_secret():
    Path(TOLD["secret"]).read_text()


@attempt
def list_home():
    os.listdir(TOLD["home"])


@attempt
def read_passwd_of_host():
    if TOLD["a_user"] not in Path("/etc/passwd").read_text():
        raise PermissionError(errno.EACCES, "not the host's")


@attempt
def read_shadow():
    Path("/etc/shadow").read_bytes()


@attempt
def server_environ():
    if b"SERVER_SECRET" not in Path(f"/proc/{TOLD['server']}/environ").read_bytes():
        raise PermissionError(errno.EACCES, "another process")


@attempt
def init_environ():
    if not Path("/proc/1/environ").read_bytes():
        raise PermissionError(errno.EACCES, "empty")


@attempt
def server_memory():
    open(f"/proc/{TOLD['server']}/mem", "rb").close()


@attempt
def server_root():
    os.listdir(f"/proc/{TOLD['server']}/root/")
    Path(f"/proc/{TOLD['server']}/root{TOLD['secret']}").read_text()


@attempt
def server_folder():
    Path(f"/proc/{TOLD['server']}/cwd/home/secret").read_text()


@attempt
def own_environ_has_the_servers():
    if "SERVER_SECRET" not in os.environ:
        raise PermissionError(errno.EACCES, "not there")


@attempt
def inherited_descriptor():
    for number in range(3, 256):
        try:
            if b"not to be seen" in os.pread(number, 100, 0):
                return
        except OSError:
            continue
    raise OSError(errno.ENOENT, "none")


@attempt
def tcp_to_server():
    socket.create_connection(("127.0.0.1", TOLD["tcp"]), 2).sendall(b"x")


@attempt
def tcp_ipv6():
    socket.create_connection(("::1", TOLD["tcp"]), 2)


@attempt
def tcp_outside():
    socket.create_connection(("192.0.2.1", 80), 2)


@attempt
def udp_to_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("127.0.0.1", TOLD["udp"]))


@attempt
def abstract_socket():
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0" + TOLD["abstract"])


@attempt
def named_socket():
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(TOLD["named"])


@attempt
def datagram_to_named_socket():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", TOLD["datagrams"])


@attempt
def datagram_pair_to_named_socket():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.sendto(b"x", TOLD["datagrams"])


@attempt
def datagram_to_abstract_socket():
    with socket.socket(socket.AF_UNIX, socket.SOCK_RAW) as one:
        one.sendto(b"x", "\0" + TOLD["abstract"] + "-datagrams")


for family in ("NETLINK", "PACKET", "VSOCK", "ALG", "BLUETOOTH", "CAN", "INET6"):

    def of_family(family=family):
        socket.socket(getattr(socket, f"AF_{family}"), socket.SOCK_RAW).close()

    attempts[f"socket_{family.lower()}"] = of_family


@attempt
def write_outside():
    Path(TOLD["home"], "written").write_text("x")


@attempt
def write_system():
    Path("/usr/written").write_text("x")


@attempt
def write_root():
    Path("/written").write_text("x")


@attempt
def write_dev():
    Path("/dev/written").write_text("x")


@attempt
def write_python():
    Path(os.__file__).open("r+").close()


@attempt
def truncate_secret():
    os.truncate(TOLD["secret"], 0)


@attempt
def chmod_secret():
    os.chmod(TOLD["secret"], 0o777)
    if os.stat(TOLD["secret"]).st_mode & 0o777 != 0o777:
        raise PermissionError(errno.EACCES, "nothing happened")


@attempt
def times_of_secret():
    os.utime(TOLD["secret"], (1, 1))
    if os.stat(TOLD["secret"]).st_mtime != 1:
        raise PermissionError(errno.EACCES, "nothing happened")


@attempt
def remove_secret():
    os.unlink(TOLD["secret"])


@attempt
def symlink_out():
    os.symlink(TOLD["secret"], "link")
    Path("link").read_text()


@attempt
def hardlink_out():
    os.link(TOLD["secret"], "hard")


@attempt
def hardlink_python():
    os.link(os.__file__, "hard.py")


@attempt
def dots_out():
    Path("../" * 20 + TOLD["secret"]).read_text()


@attempt
def rename_out():
    Path("moving").write_text("x")
    os.rename("moving", TOLD["home"] + "/moved")


for who in ("server", "victim", "neighbour"):

    def signalled(who=who):
        os.kill(TOLD[who], signal.SIGKILL)

    def asked(who=who):
        os.kill(TOLD[who], 0)
        # A number of this sandbox's own is not the one that was meant.
        if TOLD["own_pids"]:
            raise ProcessLookupError(errno.ESRCH, "one of ours")

    def by_thread(who=who):
        call("tkill", TOLD[who], signal.SIGKILL)

    def limited(who=who):
        resource.prlimit(TOLD[who], resource.RLIMIT_NOFILE, (3, 3))

    def pinned(who=who):
        os.sched_setaffinity(TOLD[who], {0})

    def scheduled(who=who):
        os.sched_setscheduler(TOLD[who], os.SCHED_BATCH, os.sched_param(0))
        if os.sched_getscheduler(TOLD[who]) != os.SCHED_BATCH:
            raise PermissionError(errno.EPERM, "nothing happened")

    def niced(who=who):
        os.setpriority(os.PRIO_PROCESS, TOLD[who], 19)

    def traced(who=who):
        call("ptrace", 16, TOLD[who], 0, 0)

    def fetched(who=who):
        call("pidfd_getfd", os.pidfd_open(TOLD[who]), 0, 0)

    def owned(who=who):
        # Signals sent by the kernel on behalf of a descriptor.
        one, other = socket.socketpair()
        fcntl.fcntl(one, fcntl.F_SETOWN, TOLD[who])
        fcntl.fcntl(one, 10, signal.SIGKILL)

    for function in (signalled, asked, by_thread, limited, pinned, scheduled, niced):
        attempts[f"{function.__name__}_{who}"] = function
    for function in (traced, fetched, owned):
        attempts[f"{function.__name__}_{who}"] = function


@attempt
def kill_group():
    os.kill(-TOLD["victim"], signal.SIGKILL)


@attempt
def trace_child():
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(20)"])
    try:
        call("ptrace", 16, child.pid, 0, 0)
    finally:
        child.kill()
        child.wait()


@attempt
def new_namespace_by_clone():
    if call("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)
    os.wait()


for name, bit in (
    ("user", 0x10000000),
    ("mount", 0x20000),
    ("net", 0x40000000),
    ("pid", 0x20000000),
):
    attempts[f"unshare_{name}"] = lambda bit=bit: call("unshare", bit)


@attempt
def become_root():
    os.setresuid(0, 0, 0)
    if os.getuid() == 0:
        return
    raise PermissionError(errno.EPERM, "no")


@attempt
def become_other():
    os.setresgid(12345, 12345, 12345)


@attempt
def setuid_program():
    said = subprocess.run(
        ["/bin/su", "-c", "id -u", "root"], capture_output=True, stdin=-3, timeout=10
    )
    if said.stdout.strip() != b"0":
        raise PermissionError(errno.EPERM, "no")


@attempt
def chroot():
    os.mkdir("jail") if not os.path.isdir("jail") else None
    os.chroot("jail")


@attempt
def device():
    os.mknod("device", 0o20666, os.makedev(1, 3))


@attempt
def block_device():
    os.mknod("block", 0o60666, os.makedev(254, 0))


@attempt
def write_sysctl():
    Path("/proc/sys/kernel/hostname").write_text("x")


@attempt
def write_core_pattern():
    Path("/proc/sys/kernel/core_pattern").write_text("|/mnt/data/x")


@attempt
def sysrq():
    Path("/proc/sysrq-trigger").write_text("h")


@attempt
def write_sys():
    Path("/sys/kernel/uevent_helper").write_text("x")


@attempt
def release_agent():
    for place in ("/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/release_agent"):
        Path(place).write_text("x")


@attempt
def kernel_log():
    Path("/dev/kmsg").read_bytes()


@attempt
def raw_disk():
    for name in ("vda", "sda", "nvme0n1", "mem", "kmem"):
        try:
            open(f"/dev/{name}", "rb").close()
            return
        except OSError as error:
            last = error
    raise last


@attempt
def core_dump():
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
        except (OSError, ValueError):
            os._exit(7)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7:
        raise PermissionError(errno.EPERM, "no")


@attempt
def type_into_terminal():
    reader, writer = os.openpty() if os.path.exists("/dev/ptmx") else os.pipe()
    fcntl.ioctl(writer, 0x5412, b"x")


@attempt
def type_with_high_bits():
    call("ioctl", 1, 0x5412 | (1 << 32), ctypes.c_char_p(b"x"))


@attempt
def raise_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (hard + 100, hard + 100))


@attempt
def be_nicer_to_self():
    if os.nice(-10) > 0:
        raise PermissionError(errno.EPERM, "no")


EFAULT = ctypes.c_void_p(1)
plain("mount", ctypes.c_char_p(b"x"), ctypes.c_char_p(b"."), ctypes.c_char_p(b"tmpfs"), 0, 0)
plain("umount2", ctypes.c_char_p(b"/tmp"), 2)
plain("pivot_root", ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
plain("open_tree", -100, ctypes.c_char_p(b"."), 1)
plain("move_mount", -100, ctypes.c_char_p(b"."), -100, ctypes.c_char_p(b"."), 0)
plain("fsopen", ctypes.c_char_p(b"tmpfs"), 0)
plain("mount_setattr", -100, ctypes.c_char_p(b"."), 0, 0, 0)
plain("setns", 0, 0)
plain("process_vm_readv", TOLD["server"], EFAULT, 1, EFAULT, 1, 0)
plain("process_vm_writev", TOLD["server"], EFAULT, 1, EFAULT, 1, 0)
plain("kcmp", os.getpid(), os.getpid(), 0, 0, 1)
plain("bpf", 0, EFAULT, 8)
plain("perf_event_open", EFAULT, 0, -1, -1, 0)
plain("userfaultfd", 1)
plain("add_key", ctypes.c_char_p(b"user"), ctypes.c_char_p(b"x"), ctypes.c_char_p(b"x"), 1, -2)
plain("request_key", ctypes.c_char_p(b"user"), ctypes.c_char_p(b"x"), 0, -2)
plain("keyctl", 0, -3, 0)
plain("io_uring_setup", 1, EFAULT)
plain("memfd_create", ctypes.c_char_p(b"x"), 0)
plain("memfd_secret", 0)
plain("shmget", 0, 4096, 0o1600)
plain("msgget", 0, 0o1600)
plain("semget", 0, 1, 0o1600)
plain("name_to_handle_at", -100, ctypes.c_char_p(b"."), EFAULT, EFAULT, 0)
plain("open_by_handle_at", -100, EFAULT, 0)
plain("kexec_load", 0, 0, EFAULT, 0)
plain("init_module", EFAULT, 1, EFAULT)
plain("finit_module", 0, EFAULT, 0)
plain("delete_module", ctypes.c_char_p(b"x"), 0)
plain("reboot", 1, 2, 3, EFAULT)
plain("syslog", 3, EFAULT, 1)
plain("settimeofday", EFAULT, 0)
plain("clock_settime", 0, EFAULT)
plain("swapon", ctypes.c_char_p(b"x"), 0)
plain("acct", 0)
plain("quotactl", 0, 0, 0, EFAULT)
plain("personality", 0x0040000)
plain("vmsplice", 1, EFAULT, 1, 0)
plain("fanotify_init", 0, 0)
plain("clone3", EFAULT, 64)
attempts["a_call_of_the_future"] = lambda: call_number(469)


def call_number(number):
    if libc.syscall(ctypes.c_long(number), 0, 0, 0) == -1:
        raise OSError(ctypes.get_errno(), "future")


def foreign_calls():
    """Does another interface of the processor end the process at once?"""
    child = os.fork()
    if child == 0:
        libc.syscall(ctypes.c_long(0x40000000 + 39))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def harmless():
    """What has to work, as a sign that the sandbox is one and not a wall."""
    Path("left.txt").write_text("kept")
    os.mkdir("folder")
    os.rename("left.txt", "folder/left.txt")
    Path(os.environ["TMPDIR"], "short-lived").write_bytes(b"x" * 4096)
    import shutil

    shutil.copy("folder/left.txt", "copy.txt")
    thread = threading.Thread(target=Path("by-thread").write_text, args=("x",))
    thread.start()
    thread.join()
    said = subprocess.run([sys.executable, "-I", "-S", "-c", "print(6 * 7)"], capture_output=True)
    one, other = socket.socketpair()
    one.sendall(b"hello")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(TOLD["sockets"] + "/own")
    listening.listen()
    os.urandom(8)
    Path("/dev/null").write_text("x")
    return [Path("copy.txt").read_text(), said.stdout.decode().strip(), other.recv(5).decode()]


def outcome(function):
    try:
        function()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    except (ValueError, subprocess.SubprocessError) as error:
        return type(error).__name__
    return "done"


if __name__ == "__main__":
    names = sys.argv[1:] or list(attempts)
    results = {name: outcome(attempts[name]) for name in names if name in attempts}
    said = {"attempts": results}
    if not sys.argv[1:]:
        said["foreign"] = foreign_calls() if os.uname().machine == "x86_64" else -31
        said["harmless"] = harmless()
    Path("said.json").write_text(json.dumps(said))
