"""mount -t fuse.fsmount, lines of fstab, and umount: mount(8) itself, with its helper in a /sbin for this test."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.namespace import Namespace, namespace
from tests.cli.place import Place, has_ended, refused
from tests.mounts import GroupFiles, eventually, fails_with

HELPER = shutil.which("mount.fuse.fsmount", path=os.path.dirname(sys.executable)) or ""

pytestmark = [pytest.mark.any_user, pytest.mark.skipif(not HELPER, reason="the package is not installed here")]


class System:
    """A namespace with mount.fuse.fsmount installed, its own fstab, and a mount point."""

    def __init__(self, place: Place, space: Namespace, fstab: Path) -> None:
        self.place = place
        self.fstab = fstab
        self.run, self.does = space.run, space.does
        self.root = GroupFiles(space.path(place.path), {"memory": "bytes", "tokens": "count"})

    def daemon(self) -> int:
        pid = int(json.loads((self.root / ".fsmount").read_bytes())["server"])
        self.place.daemons.add(pid)
        return pid

    def mounts(self) -> list[str]:
        """The source, type and options of each mount at the mount point, from findmnt."""
        return self.run("findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", "--", self.place.path).stdout.splitlines()


@pytest.fixture
def system(place: Place) -> Iterator[System]:
    sbin, fstab = place.directory / "sbin", place.directory / "fstab"
    sbin.mkdir()
    (sbin / "mount.fuse.fsmount").symlink_to(HELPER)
    fstab.touch()
    with namespace('mount --bind "$1" /sbin; mount --bind "$2" /etc/fstab', sbin, fstab) as space:
        made = System(place, space, fstab)
        yield made
        if made.mounts():
            made.daemon()  # the place ends it


@pytest.mark.root
def test_mount_applies_a_line_of_fstab_and_umount_ends_the_daemon(system: System) -> None:
    ours = "resource=memory,resource=tokens:count,batch=0,groups=64,watchdog=0"
    theirs = "rw,noauto,user,exec,relatime,_netdev,nofail,comment=hers,x-systemd.automount,X-mine=1,allow_other"
    system.fstab.write_text(f"counters {system.place.path} fuse.fsmount {theirs},{ours} 0 0\n")
    system.does("mount", system.place.path)
    (mount,) = system.mounts()
    source, kind, options = mount.split()
    assert (source, kind) == ("counters", "fuse.fsmount")
    assert {"rw", "nosuid", "nodev", "allow_other", "default_permissions"} <= set(options.split(","))
    system.root.charge(7, "tokens")
    assert system.root.stat("tokens")["usage"] == 7 and system.root.stat()["batch"] == 0
    for number in range(63):
        system.root.mkdir(str(number))
    with fails_with(errno.ENOSPC):
        system.root.mkdir("more")
    daemon, region = system.daemon(), system.place.region
    assert region is not None
    system.does("umount", system.place.path)
    eventually(lambda: has_ended(daemon), what="the end of the daemon")
    assert not system.mounts() and not region.exists()


@pytest.mark.root
def test_mount_all_mounts_once(system: System) -> None:
    system.fstab.write_text(f"the,\\040counters {system.place.path} fuse.fsmount ro 0 0\n")
    system.does("mount", "--all")
    daemon = system.daemon()
    with fails_with(errno.EROFS):
        system.root.mkdir("group")
    system.does("mount", "--all")
    assert system.daemon() == daemon
    (mount,) = system.mounts()
    assert mount.startswith("the, counters fuse.fsmount ro,")
    system.does("umount", system.place.path)


@pytest.mark.root
def test_mount_recovers_the_charges_of_a_killed_daemon(system: System) -> None:
    mount = ("mount", "-t", "fuse.fsmount", "counters", system.place.path)
    system.does(*mount)
    system.root.charge(4096)
    daemon = system.daemon()
    os.kill(daemon, 9)
    eventually(lambda: has_ended(daemon))
    system.does(*mount)
    assert system.root.usage == 4096 and len(system.mounts()) == 1
    system.does("mount", "-i", "-o", "remount,ro", system.place.path)
    with fails_with(errno.EROFS):
        system.root.mkdir("group")
    system.does("umount", system.place.path)


@pytest.mark.root
def test_a_user_mounts_and_unmounts_by_a_user_line_of_fstab(system: System) -> None:
    user = pwd.getpwnam("nobody")
    os.chown(system.place.path, user.pw_uid, user.pw_gid)
    system.fstab.write_text(f"counters {system.place.path} fuse.fsmount noauto,user 0 0\n")
    as_user = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    system.does(*as_user, "mount", system.place.path)
    assert f"user_id={user.pw_uid}," in system.mounts()[0]
    facts = json.loads(system.does(*as_user, "cat", system.place.path / ".fsmount"))
    system.place.daemons.add(facts["server"])
    system.does(*as_user, "umount", system.place.path)
    eventually(lambda: has_ended(facts["server"]))
    assert not system.mounts() and not Path(facts["region"]).exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("ro,bogus", "FUSE does not know the option bogus"),
        ("batch=4kB", "'4kB' is neither auto nor an amount"),
        ("batch", "'' is neither auto nor an amount"),
        ("debug=1", "'--debug' does not take a value"),
        ("foreground", "FUSE does not know the option foreground"),
        ("remount,ro", "mount -i -o remount"),
    ],
)
def test_a_wrong_option_is_an_error_of_one_line(place: Place, options: str, error: str) -> None:
    command = [sys.executable, HELPER, "counters", str(place.path), "-o", f"rw,{options}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert error in refused(done, place.path)
    assert not place.mounts and place.region is None


def test_an_error_names_a_missing_config(place: Place) -> None:
    command = [sys.executable, HELPER, "counters", str(place.path), "-o", "rw,config=/not\\,there"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused(done, "/not,there") == "No such file or directory: name a file that fsmount save wrote"


def test_a_fake_mount_mounts_nothing(place: Place) -> None:
    command = [sys.executable, HELPER, "counters", str(place.path), "-sfnv", "-o", "rw", "-t", "fuse.fsmount"]
    subprocess.run(command, check=True)
    assert not place.mounts and place.region is None
