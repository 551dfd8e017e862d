"""fsmount status: the daemon, the region and the room of a mount; errors about a user's used-up share."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import fsmount
from fsmount.protocol.status import parse_status
from tests.cli.place import Place, refused, run, run_here
from tests.mounts import GroupFiles, Mount, as_user, mounted

root = pytest.mark.root
ALICE = 60_101


def status(path: object) -> dict[str, Any]:
    done = run_here("status", "--json", path)
    assert (done.returncode, done.stderr) == (0, ""), done
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_status_names_the_daemon_the_region_and_the_version(mount: Mount) -> None:
    found = status(mount.path)
    assert mount.daemon is not None and mount.region is not None
    assert found["mountpoint"] == str(mount.path)
    daemon = found["daemon"]
    assert (daemon["pid"], daemon["uid"], daemon["version"]) == (mount.daemon.pid, os.geteuid(), fsmount.__version__)
    assert 0 <= time.time() - datetime.fromisoformat(daemon["since"]).timestamp() < 3600
    region = os.stat(mount.region)
    assert found["region"] == {
        "path": str(mount.region),
        "size": region.st_size,
        "allocated": region.st_blocks * 512,
    }
    assert found["resources"] == {"memory": "bytes", "tokens": "count"}
    assert found["version"] == fsmount.__version__


def test_status_counts_used_room_and_names_the_largest_user(mount: Mount, group: GroupFiles) -> None:
    before = status(mount.path)["capacity"]
    group.mkdir("child")
    with group.lease() as lease:
        lease.write("1")
        after = status(mount.path)["capacity"]
    changed = {what: found["used"] - before[what]["used"] for what, found in after.items()}
    assert {what: number for what, number in changed.items() if number} == {
        "groups": 1,
        "leases": 1,
        "cells": 1,
        "open_files": 1,
    }
    assert after["groups"]["capacity"] == 65536
    assert after["groups"]["largest"][0]["uid"] == os.geteuid()
    os.rmdir(group / "child")


def test_status_prints_a_table(mount: Mount) -> None:
    done = run_here("status", mount.path)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].split() == ["mount", str(mount.path)]
    assert re.match(r"daemon      pid \d+, user .+, since \d{4}-.* UTC, version ", lines[1])
    assert any(re.match(r"groups +\d+ +65536 +0%  ", line) for line in lines)
    assert any(re.match(r"open files +\d+ +262144 ", line) for line in lines)


def test_status_accepts_a_group(mount: Mount, group: GroupFiles) -> None:
    assert status(group.path)["mountpoint"] == str(mount.path)
    assert refused(run_here("status", group / "memory.stat"), group / "memory.stat").startswith("not a directory")


@root
def test_status_accepts_a_bind_mount_of_a_group(mount: Mount, group: GroupFiles, tmp_path: Path) -> None:
    subprocess.run(["mount", "--bind", str(group.path), str(tmp_path)], check=True)
    try:
        assert status(tmp_path)["mountpoint"] == str(mount.path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@root
def test_other_users_may_ask_for_the_status_of_a_mount_that_they_may_read() -> None:
    with mounted("-o", "allow_other") as mount:
        mount.root.mkdir("group")
        found = as_user(ALICE, lambda: run_here("status", "--json", mount.path).stdout)
        assert json.loads(found)["daemon"]["uid"] == 0
        os.chmod(mount.path, 0o700)
        text = as_user(ALICE, lambda: run_here("status", mount.path).stderr)
        assert "Permission denied" in text and text.count("\n") == 1
        os.rmdir(mount.path / "group")


def test_status_without_a_serving_daemon_is_an_error(place: Place, tmp_path: Path) -> None:
    assert (
        refused(run_here("status", tmp_path), tmp_path)
        == "nothing of fsmount is mounted there: name a mount point, or a group of a mount"
    )
    nowhere = tmp_path / "nowhere"
    assert refused(run_here("status", nowhere), nowhere).startswith("there is no such directory")
    with mounted() as mount:
        mount.expected_log.append("the previous daemon died")
        mount.kill()
        assert refused(run_here("status", mount.path), mount.path).startswith("no daemon serves it: ")
        mount.start()
        assert mount.daemon is not None
        assert status(mount.path)["daemon"]["pid"] == mount.daemon.pid
        mount.daemon.send_signal(signal.SIGSTOP)
        text = refused(run_here("status", mount.path), mount.path)
        mount.daemon.send_signal(signal.SIGCONT)
        assert f"its daemon (pid {mount.daemon.pid}) does not answer" in text
        mount.umount("--keep")
        text = refused(run_here("status", mount.path), mount.path)
        assert "the counters of an earlier mount are in" in text and str(mount.region) in text


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b'{"daemon": 1}', b"[" * 100_000], ids=repr)
def test_an_unknown_answer_is_an_error_of_one_line(text: bytes) -> None:
    with pytest.raises(ValueError, match="not the status"):
        parse_status(text)


# ---- used-up shares


@root
def test_errors_in_python_and_of_commands_name_the_user_with_the_used_up_share(
    new_group: Callable[[Mount], GroupFiles],
) -> None:
    with mounted("-o", "allow_other", "--cells", "8") as mount:
        mount.expected_log.append("the share of user 60101 is used up")
        group = mount.root.mkdir("group")
        os.chmod(group / "memory.lease", 0o666)

        def fill() -> list[str]:
            held = [group.lease() for _ in range(4)]
            for lease in held:
                lease.write("1")
            texts = []
            with fsmount.attach(group.path, transport="files") as attached:
                for wait in (False, True):
                    try:
                        attached["memory"].charge(1, wait=wait)
                    except OSError as error:
                        assert error.errno == errno.ENOSPC, error
                        texts.append(str(error.strerror))
            texts.append(run("run", "-g", group.path, "-r", "memory=1", "--", "true").stderr)
            return texts

        errors = as_user(ALICE, fill)
        assert len(errors) == 3
        for text in errors:
            assert "the share of user 60101 is used up: it has 4 leases and 4 cells" in text
            assert text.count("\n") <= 1
        group.remove()
