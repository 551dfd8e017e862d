"""A bind mount of a tree: commands work on it, and umount removes the bind mount alone."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.place import Place, has_ended, refused, run_here
from tests.mounts import eventually

pytestmark = pytest.mark.root

Bind = Callable[[str], Path]


@pytest.fixture
def bind(place: Place, other_place: Place) -> Iterator[Bind]:
    """Mounts a tree, and returns a function that binds a directory of the tree at another place."""
    place.mount()
    place.root.mkdir("group").set_limit(1000)

    def bind(below: str) -> Path:
        subprocess.run(["mount", "--bind", place.path / below, other_place.path], check=True)
        return other_place.path

    yield bind
    while other_place.mounts:
        subprocess.run(["umount", "-l", other_place.path], check=True)


@pytest.mark.parametrize("below", [".", "group"])
@pytest.mark.parametrize("options", [[], ["--keep"]], ids=repr)
def test_umount_of_a_bind_mount_leaves_the_tree_mounted(
    place: Place, other_place: Place, bind: Bind, below: str, options: list[str]
) -> None:
    pid = place.daemon
    place.root.child("group").charge(5)
    done = run_here("umount", *options, bind(below))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not other_place.mounts
    assert (place.daemon, place.root.usage) == (pid, 5)
    place.root.child("group").uncharge(5)
    place.umount()


def test_a_bind_mount_in_use_is_busy(place: Place, bind: Bind) -> None:
    path = bind("group")
    with (path / "memory.stat").open():
        assert refused(run_here("umount", path), path).startswith("busy: ")
    with subprocess.Popen(["sleep", "600"], cwd=path) as sleeper:
        assert f"sleep (pid {sleeper.pid}) has its current directory there" in refused(run_here("umount", path), path)
        sleeper.kill()


def test_a_tree_is_busy_while_it_is_bound_elsewhere(place: Place, bind: Bind) -> None:
    path = bind("group")
    assert refused(run_here("umount", place.path), place.path) == f"busy: also mounted at {path}; unmount that first"
    assert run_here("umount", path).returncode == 0
    place.umount()


def test_umount_removes_a_stale_bind_mount_and_the_region_stays(place: Place, other_place: Place, bind: Bind) -> None:
    path = bind("group")
    place.root.charge(5)
    place.signal(signal.SIGKILL)
    for options in ([], ["--stale"]):
        assert run_here("umount", *options, path).returncode == 0
        assert not other_place.mounts and place.mounts and place.region is not None
    place.mount()
    assert place.root.usage == 5
    place.umount()


@pytest.mark.parametrize("is_stale", [False, True], ids=["served", "stale"])
@pytest.mark.parametrize("below", [".", "group"])
def test_doctor_and_save_work_on_a_bind_mount(place: Place, bind: Bind, below: str, is_stale: bool) -> None:
    path = bind(below)
    wanted = run_here("save", place.path, "-").stdout
    assert "group" in wanted
    if is_stale:
        place.signal(signal.SIGKILL)
    done = run_here("doctor", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run_here("save", path, "-").stdout == wanted


def test_commands_on_a_bind_mount_ignore_a_region_that_an_earlier_tree_left_at_that_path(
    place: Place, other_place: Place, bind: Bind
) -> None:
    other_place.mount()
    other_place.root.charge(9)
    other_place.umount("--keep")
    path = bind(".")
    assert "group" in run_here("save", path, "-").stdout
    place.signal(signal.SIGKILL)
    assert run_here("umount", path).returncode == 0
    other_place.mount()
    assert other_place.root.usage == 9


@pytest.mark.parametrize("shared_memory", ["the same", "its own"])
@pytest.mark.parametrize("below", [".", "group"])
def test_commands_in_another_mount_namespace_behave_the_same(
    place: Place, other_place: Place, bind: Bind, below: str, shared_memory: str
) -> None:
    own = "mount -t tmpfs -o mode=1777 tmpfs /dev/shm" if shared_memory == "its own" else ""
    path = bind(below)
    wanted = run_here("save", place.path, "-").stdout
    pid = place.daemon
    keep = "\n".join([f"mount --bind {path} /mnt", own])
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"set -e\n{keep}\necho up; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdin is not None and keeper.stdout is not None and keeper.stdout.readline() == "up\n"

        def inside(*words: object) -> subprocess.CompletedProcess[str]:
            enter = ["nsenter", "--mount", f"--target={keeper.pid}", "--wd=/", "--", *fsmount(), *map(str, words)]
            return subprocess.run(enter, capture_output=True, text=True, timeout=60, check=False)

        done = inside("doctor", "/mnt")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert inside("save", "/mnt", "-").stdout == wanted
        for words in (["--keep", "/mnt"], ["--keep", place.path]):
            done = inside("umount", *words)
            assert (done.returncode, done.stderr) == (0, "")
            assert place.daemon == pid
        keeper.stdin.close()
    assert run_here("umount", path).returncode == 0
    place.umount()
    eventually(lambda: has_ended(pid))


def fsmount() -> list[str]:
    return [str(Path(__file__).parents[2] / ".venv" / "bin" / "fsmount")]
