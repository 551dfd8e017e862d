"""A mount that is killed, or fails, at one of its system calls, by means of strace.

The next mount has every earlier charge, and no file is left behind. Each test draws a system call and prints its seed:
FSMOUNT_SEED repeats a run, and FSMOUNT_SOAK=1 tries all calls.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.admin import region_path
from tests.cli.place import Place
from tests.mounts import eventually

pytestmark = pytest.mark.root  # fusermount3 is not root when it is traced

#: The state when the mount begins.
SCENES = ("nothing", "kept", "kept elsewhere", "stale")

#: The system calls of a mount, and the maximum number of times that it makes each.
STEPS = {
    "setsid": 1,
    "mkdir": 2,
    "flock": 2,
    "link": 1,
    "unlink": 3,
    "symlink": 1,
    "rmdir": 1,
    "umount2": 1,
    "mount": 1,
}

#: The calls that fail without room or descriptors.
NEEDS = {
    "setsid": 1,
    "dup2": 5,
    "mkdir": 2,
    "ftruncate": 1,
    "flock": 2,
    "link": 1,
    "symlink": 1,
    "epoll_create1": 3,
    "memfd_create": 1,
    "mount": 1,
    "eventfd2": 2,
    "socketpair": 2,
}
ERRORS = ("EMFILE", "ENOSPC", "EIO")


def under(injected: str, log: Path | str = "/dev/null") -> list[str]:
    """The command line that injects a fault into a command without being its parent."""
    call = injected.partition(":")[0]
    return ["strace", "-DD", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", "-e", f"inject={injected}"]


def mount_under(place: Place, injected: str, *options: str) -> tuple[int, str]:
    """The exit status and the output of the mount."""
    command = [*under(injected), sys.executable, "-m", "fsmount", "mount", str(place.path), *options]
    output = place.directory / "output"
    with output.open("w") as file:  # strace keeps the file open as long as the daemon lives
        done = subprocess.run(command, stdout=file, stderr=file, timeout=60, check=False)
    if done.returncode == 0:
        place.daemons.add(place.daemon)
    else:
        eventually(lambda: not place.processes, within=60, what="the end of all processes")
    return done.returncode, output.read_text()


def prepare(place: Place, scene: str) -> int:
    """Prepares the state, and returns its charge."""
    if scene == "nothing":
        return 0
    place.mount(*(("--region", place.directory / "region") if scene == "kept elsewhere" else ()))
    place.root.charge(5)
    if scene == "stale":
        place.signal(signal.SIGKILL)
    else:
        place.umount("--keep")
    return 5


def check(place: Place, charge: int) -> None:
    """Checks the charge in this mount or the next, and that an unmount leaves nothing."""
    if not is_served(place):
        place.mount()
    assert (place.root.usage, len(place.mounts)) == (charge, 1)
    place.umount()
    assert (place.mounts, place.region, left(place)) == ([], None, [])


def is_served(place: Place) -> bool:
    try:
        return place.daemon > 0
    except OSError:
        return False


def left(place: Place) -> list[Path]:
    own = Path(region_path.place(str(place.path)))
    found = [*own.parent.glob(f"{own.name}*"), *place.directory.glob("region*")]
    with contextlib.suppress(OSError):
        own.parent.rmdir()
    return found


def places(steps: dict[str, int], rng: random.Random, soak: bool, few: int) -> list[tuple[str, str, int]]:
    everywhere = [(scene, call, n + 1) for scene in SCENES for call, times in steps.items() for n in range(times)]
    return everywhere if soak else rng.sample(everywhere, few)


def test_a_mount_that_is_killed_at_any_system_call_loses_no_charge(place: Place, seed: int, soak: bool) -> None:
    for scene, call, number in places(STEPS, random.Random(seed), soak, 1):
        charge = prepare(place, scene)
        print("scene:", scene, "killed at", call, number)
        mount_under(place, f"{call}:signal=KILL:when={number}")
        check(place, charge)


def test_a_mount_that_fails_at_any_system_call_prints_one_line(place: Place, seed: int, soak: bool) -> None:
    rng = random.Random(seed)
    for scene, call, number in places(NEEDS, rng, soak, 1):
        charge, error = prepare(place, scene), rng.choice(ERRORS)
        print("scene:", scene, call, number, "fails with", error)
        status, output = mount_under(place, f"{call}:error={error}:when={number}")
        if status == 0:
            assert output == "" and is_served(place)
        else:
            assert status == 1 and output.startswith(f"fsmount: {place.path}: ") and output.count("\n") == 1, output
            assert "Error(" not in output, output
            assert scene == "stale" or not place.mounts
            assert charge or not left(place)
        check(place, charge)


def test_with_too_few_descriptors_a_mount_leaves_nothing(place: Place, seed: int, soak: bool) -> None:
    few = range(8, 15)
    for descriptors in few if soak else random.Random(seed).sample(few, 1):
        command = ["prlimit", f"--nofile={descriptors}", sys.executable, "-m", "fsmount", "mount", str(place.path)]
        if subprocess.run(command, timeout=60, check=False).returncode == 0:  # this number is enough
            place.umount()
        eventually(lambda: not place.processes, within=60, what="the end of the daemon")
        assert (place.mounts, left(place)) == ([], []), descriptors


def test_one_of_two_mounts_with_different_regions_is_refused_and_leaves_nothing(place: Place) -> None:
    region, other = place.directory / "region", place.directory / "other"
    command = [sys.executable, "-m", "fsmount", "mount", str(place.path), "--region", str(region)]
    output, log = place.directory / "output", place.directory / "log"
    log.touch()
    with output.open("w") as file:
        stopped = subprocess.Popen([*under("flock:signal=STOP:when=1", log), *command], stdout=file, stderr=file)
    eventually(lambda: "stopped by SIGSTOP" in log.read_text(), within=60, what="a stopped daemon")
    (daemon,) = (int(line.split()[0]) for line in log.read_text().splitlines() if "stopped by" in line)
    place.mount("--region", other)
    place.root.charge(5)
    os.kill(daemon, signal.SIGCONT)
    assert stopped.wait(60) == 1
    assert output.read_text() == f"fsmount: {place.path}: another process has just mounted here, with other counters\n"
    assert (place.root.usage, len(place.mounts), region.exists()) == (5, 1, False)
    place.umount()
    assert left(place) == []


def test_a_signal_during_a_mount_unmounts_and_loses_no_charge(place: Place, seed: int) -> None:
    number = random.Random(seed).choice((signal.SIGTERM, signal.SIGINT))
    prepare(place, "kept")
    command = [sys.executable, "-m", "fsmount", "mount", str(place.path), "-f"]
    daemon = subprocess.run([*under(f"mount:signal={number.name}"), *command], timeout=60, check=False)
    assert (daemon.returncode, place.mounts) == (0, [])
    check(place, 5)
