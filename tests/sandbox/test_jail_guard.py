"""What is done for a guard that was killed itself: all of the sandbox's user ends, nobody else."""

from __future__ import annotations

import os
import subprocess

import pytest

from ouzel.sandbox.jail_process import end_user
from ouzel.sandbox.jail_uids import Uids, find_range


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has users for sandboxes")
def test_all_processes_of_a_sandboxs_user_end_and_no_others() -> None:
    users = Uids(*find_range())
    uid, other = users.take(), users.take()
    # One is in a session of its own, as what code leaves behind may be.
    ours = [
        subprocess.Popen(["sleep", "600"], user=uid, group=uid, extra_groups=[], cwd="/"),
        subprocess.Popen(["sleep", "600"], user=uid, start_new_session=True, cwd="/"),
    ]
    bystander = subprocess.Popen(["sleep", "600"], user=other, group=other, cwd="/")
    try:
        end_user(uid)
        assert [process.wait(20) for process in ours] == [-9, -9]
        assert bystander.poll() is None
    finally:
        for process in (*ours, bystander):
            process.kill()
            process.wait()
