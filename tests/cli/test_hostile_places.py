"""Another user can neither read a region nor replace its file, even by taking its name first."""

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
from tests.cli.place import Place, refused, run_here

pytestmark = pytest.mark.any_user

ROOT = Path(__file__).parents[2]

# Runs in a mount namespace with an empty /dev/shm: the other user takes a name there, then the script mounts and
# reports the files in /dev/shm.
IN_EMPTY_SHARED_MEMORY = """
import json, os, signal, stat, subprocess, sys
from pathlib import Path
from tests.cli.place import Place
from tests.mounts import as_user

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
place = Place()
try:
    place.mount()
    place.root.charge(5)
    region = place.region
    status, parent = region.lstat(), region.parent.lstat()
    report = {
        "region": str(region),
        "file": [stat.filemode(status.st_mode), status.st_uid, status.st_nlink],
        "directory": [stat.filemode(parent.st_mode), parent.st_uid],
        "found": [str(path) for path in SHM.rglob("*.region")],
    }
    place.signal(signal.SIGKILL)
    place.mount()
    report["again"] = str(place.region)
    report["usage"] = place.root.usage
    place.umount()
finally:
    place.destroy()
report["left"] = looks() == before
print(json.dumps(report))
"""


def mount_where(take: str) -> dict[str, Any]:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", IN_EMPTY_SHARED_MEMORY, take]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


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
def test_a_mount_avoids_a_name_in_shared_memory_that_another_user_took(take: str) -> None:
    report = mount_where(take)
    region = Path(report["region"])
    assert region.parent.name.startswith("fsmount-0-")
    assert report["directory"] == ["drwx------", 0]
    assert report["file"] == ["-rw-------", 0, 1]
    assert report["found"] == [str(region)]
    assert (report["again"], report["usage"]) == (str(region), 5), "the next daemon did not find the region"
    assert report["left"], "the mount left or changed a file in shared memory"


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory in which all users may make, rename and remove files."""
    path = Path(tempfile.mkdtemp(prefix="fsmount-test-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("above", ["mine", "mine/deeper"])
def test_a_region_below_a_directory_open_to_all_users_is_refused(
    place: Place, open_directory: Path, above: str
) -> None:
    directory = open_directory / above
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    error = refused(run_here("mount", place.path, "--region", directory / "region"), place.path)
    assert error.startswith("other users could replace the region")
    assert not list(directory.iterdir())
    open_directory.chmod(0o1777)
    place.mount("--region", directory / "region")
    place.umount()


def test_an_existing_region_in_a_directory_opened_to_others_is_refused(place: Place, open_directory: Path) -> None:
    region = open_directory / "region"
    open_directory.chmod(0o755)
    place.mount("--region", region)
    place.root.charge(5)
    place.umount("--keep")
    open_directory.chmod(0o777)
    error = refused(run_here("mount", place.path), place.path)
    assert error.startswith(f"other users could replace the region {region}")
    open_directory.chmod(0o755)
    place.mount()
    assert place.root.usage == 5
    place.umount()
    assert not region.exists()


def test_a_region_with_a_hard_link_is_refused_and_stays_unchanged(place: Place) -> None:
    region, other = place.directory / "region", place.directory / "other"
    Tree.create(region, groups=64, cells=256).close()
    os.link(region, other)
    before = region.read_bytes()
    error = refused(run_here("mount", place.path, "--region", region), place.path)
    assert str(region) in error and "other hard links" in error
    assert region.read_bytes() == before
    other.unlink()
    place.mount("--region", region)
    place.umount()
