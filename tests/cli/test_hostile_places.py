"""Another user, who is there first or at the same time, gets nothing of a region and nothing into its place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsmount import Tree
from tests.cli.place import Place, refused, run

pytestmark = pytest.mark.any_user

ROOT = Path(__file__).parents[2]

# Run in a mount namespace of its own, where /dev/shm is empty: mounts and says what became of /dev/shm meanwhile.
IN_EMPTY_SHARED_MEMORY = """
import json, os, stat, subprocess, sys
from pathlib import Path
from tests.mounts import as_user, mounted

SHM, THEM = Path("/dev/shm"), 60_101
subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(SHM)], check=True)

def take() -> None:
    os.umask(0)
    exec(sys.argv[1])

def looks() -> list[str]:
    return sorted(f"{path.relative_to(SHM)} {stat.filemode(path.lstat().st_mode)} {path.lstat().st_uid}"
                  for path in SHM.rglob("*"))

as_user(THEM, take)
before = looks()
with mounted() as mount:
    mount.root.charge(5)
    region = mount.region
    status, parent = region.lstat(), region.parent.lstat()
    told = {
        "region": str(region),
        "file": [stat.filemode(status.st_mode), status.st_uid, status.st_nlink],
        "directory": [stat.filemode(parent.st_mode), parent.st_uid],
        "found": [str(path) for path in SHM.rglob("*.region")],
    }
    mount.kill()
    mount.start()
    told["again"] = str(mount.region)
    told["usage"] = mount.root.usage
    mount.root.uncharge(5)
told["left"] = looks() == before
print(json.dumps(told))
"""


def mount_where(take: str) -> dict[str, Any]:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", IN_EMPTY_SHARED_MEMORY, take]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


NAME = "/dev/shm/fsmount-0"


@pytest.mark.root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare (util-linux)")
@pytest.mark.parametrize(
    "take",
    [
        pytest.param(f"os.mkdir({NAME!r}, 0o777)", id="directory"),
        pytest.param(f"os.mkdir({NAME!r}, 0o700)", id="closed directory"),
        pytest.param(f"os.symlink('/tmp', {NAME!r})", id="link"),
        pytest.param(f"os.symlink('/root', {NAME!r})", id="link to what is root's"),
        pytest.param(f"os.mkdir('/dev/shm/trap', 0o777); os.symlink('trap', {NAME!r})", id="link to a trap"),
        pytest.param(f"os.close(os.open({NAME!r}, os.O_CREAT, 0o666))", id="file"),
        pytest.param(f"os.mkfifo({NAME!r})", id="fifo"),
        pytest.param(
            f"[os.mkdir({NAME!r} + end, 0o777) for end in ('', '-', '-a', '-zzzzzzzz')]", id="every likely name"
        ),
    ],
)
def test_a_name_in_shared_memory_that_another_user_took_is_left_to_him(take: str) -> None:
    told = mount_where(take)
    region = Path(told["region"])
    assert region.parent.name.startswith("fsmount-0-")
    assert told["directory"] == ["drwx------", 0]
    assert told["file"] == ["-rw-------", 0, 1]
    assert told["found"] == [str(region)]
    assert (told["again"], told["usage"]) == (str(region), 5), "the next daemon did not find it"
    assert told["left"], "something was left in shared memory, or changed"


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One where everybody may make, rename and remove."""
    path = Path(tempfile.mkdtemp(prefix="fsmount-test-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("above", ["mine", "mine/deeper"])
def test_a_region_below_a_directory_open_to_everybody_is_refused(
    place: Place, open_directory: Path, above: str
) -> None:
    directory = open_directory / above
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    told = refused(run("mount", place.path, "--region", directory / "region"), place.path)
    assert told.startswith("other users could replace the region")
    assert not list(directory.iterdir())
    open_directory.chmod(0o1777)
    place.mount("--region", directory / "region")
    place.umount()


def test_a_region_from_before_where_others_could_replace_it_by_now_is_refused(
    place: Place, open_directory: Path
) -> None:
    region = open_directory / "region"
    open_directory.chmod(0o755)
    place.mount("--region", region)
    place.root.charge(5)
    place.umount("--keep")
    open_directory.chmod(0o777)
    told = refused(run("mount", place.path), place.path)
    assert told.startswith(f"other users could replace the region {region}")
    open_directory.chmod(0o755)
    place.mount()
    assert place.root.usage == 5
    place.umount()
    assert not region.exists()


def test_a_region_with_another_name_is_refused_and_left_as_it_is(place: Place) -> None:
    region, other = place.directory / "region", place.directory / "other"
    Tree.create(region).close()
    os.link(region, other)
    before = region.read_bytes()
    told = refused(run("mount", place.path, "--region", region), place.path)
    assert str(region) in told and "other hard links" in told
    assert region.read_bytes() == before
    other.unlink()
    place.mount("--region", region)
    place.umount()
