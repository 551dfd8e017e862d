"""fsmount mount after a kill of the daemon: counters and settings stay, and charges of dead holders are released."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from tests.cli.place import Place, has_ended, refused, run_here
from tests.holder_process import HolderProcess
from tests.mounts import GroupFiles, eventually, fails_with
from tests.process_state import waits_for_the_daemon

pytestmark = pytest.mark.any_user


def test_the_next_mount_has_every_counter_limit_and_mode(place: Place) -> None:
    place.mount("--resource", "memory", "--resource", "tokens:count")
    group = GroupFiles(place.path / "a", {"memory": "bytes", "tokens": "count"})
    place.root.mkdir("a", 0o750)
    child = group.mkdir("b")
    group.set_limit(5000)
    group.set_limit(7, "tokens")
    group.write("soft_limit", 3000)
    child.charge(4096)
    child.charge(3, "tokens")
    child.uncharge(96)
    os.chmod(group.file("limit"), 0o600)
    before = group.tree_counters()
    modes = [os.stat(group.path).st_mode, os.stat(group.file("limit")).st_mode]
    place.signal(signal.SIGKILL)
    place.mount()
    assert group.tree_counters() == before
    assert [os.stat(group.path).st_mode, os.stat(group.file("limit")).st_mode] == modes
    child.uncharge(4000)
    child.uncharge(3, "tokens")
    place.umount()


def test_a_process_charges_across_a_takeover_and_its_death_releases_its_charge(place: Place) -> None:
    place.mount()
    group = place.root.mkdir("group")
    with HolderProcess(group.path, transport="memory") as process:
        process.charge(100)
        place.signal(signal.SIGKILL)
        process.charge(10)
        place.mount()
        process.uncharge(5)
        assert group.usage == 105
        process.kill()
        eventually(lambda: group.usage == 0)
    place.umount()


def test_a_takeover_releases_the_charge_of_a_holder_that_died_without_a_daemon(place: Place) -> None:
    place.mount()
    group = place.root.mkdir("group")
    gone = HolderProcess(group.path, transport="memory")
    kept = HolderProcess(group.path, transport="memory", on_exit="keep")
    with HolderProcess(group.path, transport="memory") as living:
        for process, amount in ((gone, 1), (kept, 20), (living, 300)):
            process.charge(amount)
        place.signal(signal.SIGKILL)
        gone.kill()
        kept.kill()
        place.mount()
        assert group.usage == 320
        assert [line.pid for line in group.holders() if line.pid] == [living.pid]
        assert group.stat()["common"] == 20
    group.uncharge(20)
    place.umount()


def test_a_lease_lasts_as_long_as_the_process_that_opened_it(place: Place) -> None:
    place.mount()
    group = place.root.mkdir("group")
    code = "import sys; f = open(sys.argv[1], 'r+b', 0); f.write(b'70'); print(flush=True); input()"
    opener = subprocess.Popen(
        [sys.executable, "-c", code, str(group.file("lease"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert opener.stdin is not None and opener.stdout is not None
    assert opener.stdout.readline() == b"\n"
    doomed = group.lease()
    doomed.write("5")
    place.signal(signal.SIGKILL)
    doomed.close()  # no daemon notices
    place.mount()
    assert group.usage == 75
    opener.kill()
    opener.wait()
    opener.stdin.close()
    opener.stdout.close()
    eventually(lambda: group.usage == 5)
    # This process lives, so its lease lasts as long as the tree.
    assert f"(pid {os.getpid()})" in refused(run_here("umount", place.path), place.path)
    place.umount("--keep")


def serves(place: Place, pid: int) -> bool:
    try:
        return place.daemon == pid
    except OSError:  # the stale mount is still there
        return False


UNLIMITED = b"\xff" * 7 + b"\x7f"


def damage(place: Place, found: bytes, instead: bytes) -> None:
    """Overwrites the last occurrence of these bytes in the region."""
    assert place.region is not None and len(found) == len(instead)
    region = place.region.read_bytes()
    at = region.rindex(found)
    with place.region.open("r+b") as file:
        file.seek(at)
        file.write(instead)


def test_a_takeover_repairs_and_logs_a_damaged_number(place: Place) -> None:
    place.mount("--groups", "64", "--cells", "256")
    group = place.root.mkdir("group")
    group.charge(123456789)
    place.signal(signal.SIGKILL)
    amount = (123456789).to_bytes(8, "little")
    damage(
        place, UNLIMITED + amount + amount, UNLIMITED + (5).to_bytes(8, "little") + amount
    )  # `reserved`, beside its limit
    command = [sys.executable, "-m", "fsmount", "mount", str(place.path), "-f"]
    daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    place.daemons.add(daemon.pid)
    eventually(lambda: serves(place, daemon.pid))
    assert group.usage == 123456789
    daemon.terminate()
    _, logged = daemon.communicate(timeout=60)
    (line,) = (line for line in logged.splitlines() if "in the region" in line)
    assert line.endswith("repaired in the region: reserved of /group memory: 5, recomputed 123456789")


def test_a_region_with_a_damaged_common_charge_is_refused(place: Place) -> None:
    place.mount("--groups", "64", "--cells", "256")
    place.root.mkdir("group").charge(123456789)
    place.signal(signal.SIGKILL)
    amount = (123456789).to_bytes(8, "little")
    damage(place, UNLIMITED + amount, UNLIMITED + b"\xff" * 8)  # the common charge, beside the soft limit
    error = refused(run_here("mount", place.path), place.path)
    assert f"the region {place.region} is damaged: " in error and " has common -1 " in error


def test_repeated_kills_are_taken_over_like_the_first(place: Place) -> None:
    place.mount()
    place.root.charge(5)
    for _ in range(3):
        dead = place.signal(signal.SIGKILL)
        place.mount()
        assert place.daemon != dead
        assert (len(place.mounts), place.root.usage) == (1, 5)
    place.umount()


REQUESTS = {
    "fsmount.attach(path, transport='memory')": "TreeGone",
    "fsmount.attach(path, transport='files')": "TreeGone",
    "open(path + '/memory.usage_in_bytes').read()": "ConnectionAbortedError",
    "os.mkdir(path + '/inner')": "ConnectionAbortedError",
}


def test_a_kill_of_the_daemon_fails_pending_requests(place: Place) -> None:
    place.mount()
    group = place.root.mkdir("group")
    code = "import os, sys, fsmount\npath = sys.argv[1]\ninput()\nprint(flush=True)\n"
    code += "try: {}\nexcept OSError as error: print(type(error).__name__)\n"
    pid = place.daemon
    callers = {
        request: subprocess.Popen(
            [sys.executable, "-c", code.format(request), str(group.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for request in REQUESTS
    }
    os.kill(pid, signal.SIGSTOP)
    for caller in callers.values():
        assert caller.stdin is not None and caller.stdout is not None
        caller.stdin.write("\n")
        caller.stdin.flush()
        assert caller.stdout.readline() == "\n"
        eventually(lambda caller=caller: waits_for_the_daemon(caller.pid))  # type: ignore[misc]
    os.kill(pid, signal.SIGKILL)
    assert {request: caller.communicate(timeout=60)[0].strip() for request, caller in callers.items()} == REQUESTS
    eventually(lambda: has_ended(pid))
    place.mount()
    with HolderProcess(group.path, transport="memory") as process:
        process.charge(1)
        assert group.usage == 1
    place.umount()


def test_a_process_in_a_stale_mount_does_not_prevent_the_next_mount(place: Place) -> None:
    place.mount()
    group = place.root.mkdir("group")
    group.charge(5)
    code = "import os\ntry: os.listdir('.')\nexcept OSError as error: print(error.errno)\ninput()\n"
    with subprocess.Popen(
        ["sh", "-c", f'read -r line; exec {sys.executable} -P -c "$0"', code],
        cwd=group.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as inside:
        assert inside.stdin is not None and inside.stdout is not None
        with group.file("stat").open():
            place.signal(signal.SIGKILL)
            place.mount()
            assert group.usage == 5 and len(place.mounts) == 1
        inside.stdin.write("\n")
        inside.stdin.flush()
        assert int(inside.stdout.readline()) in (errno.ENOTCONN, errno.ECONNABORTED)
        inside.stdin.write("\n")
    group.uncharge(5)
    place.umount()


@pytest.mark.root
def test_copies_of_a_stale_mount_do_not_prevent_the_next_mount(place: Place) -> None:
    """A bind mount, a copy in another mount namespace, and a mount inside the tree."""
    place.mount()
    group, bound = place.root.mkdir("group"), place.directory / "bound"
    group.charge(5)
    bound.mkdir()
    subprocess.run(["mount", "--bind", str(group.path), str(bound)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place.root.mkdir("inner").path)], check=True)
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'echo; read -r line; ls "$0"']
    try:
        with subprocess.Popen(
            [*command, str(place.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as namespace:
            assert namespace.stdout is not None
            assert namespace.stdout.readline() == "\n"
            place.signal(signal.SIGKILL)
            place.mount()
            assert group.usage == 5 and len(place.mounts) == 1
            _, output = namespace.communicate("\n", timeout=60)
            assert "Transport endpoint is not connected" in output, "the copy in the other namespace changed"
        with fails_with(errno.ENOTCONN):
            os.listdir(bound)
    finally:
        subprocess.run(["umount", str(bound)], check=True)
    group.uncharge(5)
    place.umount()
