"""Where model-written code runs: jails, kernels, containers. It knows core only.

The jail (`jail.py`) keeps code in, in one of two modes. `bubblewrap` gives it own namespaces: an
empty root with the system's programs and libraries read-only, one work folder, no network, no
other processes. `landlock` is for machines where namespaces are forbidden: rules of the kernel's
Landlock for what can be opened, and a stricter filter of system calls for all that Landlock does
not know. In both, there is a filter, no capability is left, limits are set, and a server that runs
as root gives each sandbox a user of its own. Where neither mode holds when tried, no code is run.

Stopped, and tested by attackers in `tests/sandbox/test_escape.py`: reading or writing files of the
host, the server's environment, memory and open files; any network and anybody's sockets; signals,
limits and tracing of other processes; new namespaces, mounts, devices, other users; rarely used
and often broken parts of the kernel (bpf, io_uring, perf, userfaultfd, keys); fork bombs; more
memory, disk, processor time or output than allowed; and being left over when the sandbox or the
server ends.

NOT stopped:

- A hole in the kernel. All sandboxes share the host's; the filter makes it smaller, no more.
- Reading side channels: the time that things take, shared caches, how busy the machine is.
- Slowing the machine within the limits: processor time is taken at lower priority but taken, and so
  are memory bandwidth and the disk's.
- Looking at what it runs on: the kernel's version, the processor, the machine's memory and load,
  what is installed in /usr, and where on the host the folders that it sees come from.
- Memory that all processes of a sandbox have together is measured and not capped, unless the
  operator names a control group: between two looks of the watcher it can be over. Buffers that the
  kernel keeps for pipes and sockets are bounded by their number only.
- The work folder's size, for the same reason; one file's size is capped.
- Under Landlock, whether a path exists, its size and times (`stat`), and what a link points to, as
  far as the user's rights go; that a process exists; and, as a plain user, starving other programs
  of that user of processes. `chmod`, `chown` and `utime` say "done" and do nothing there.
- What the code leaves in its folder. Whoever opens its files has to expect anything in them.
- A person who runs as root or as the server's user on the host.

`docs/sandbox.md` has the same in more words, and how to check.
"""
