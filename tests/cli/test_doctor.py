"""fsmount doctor: its report on a sound region, a damaged one, and a path without a region."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
from pathlib import Path

import pytest

from fsmount import RegionCorrupt, Tree
from fsmount.admin.named_tree import open_tree
from fsmount.admin.user_error import UserError
from tests.cli.place import Place, refused, run_here
from tests.holder_process import HolderProcess
from tests.mounts import as_user

# An amount whose bytes occur in the region's file only where the charge is counted.
CHARGE = 0x0123456789ABCDE


def healthy(place: object) -> bool:
    done = run_here("doctor", place)
    return (done.returncode, done.stdout, done.stderr) == (0, "", "")


def damage(region: Path) -> None:
    """Overwrites the first number in the region that is derived from a group's charge of CHARGE."""
    data = region.read_bytes()
    pattern = struct.pack("=q", CHARGE)
    copy = region.with_name("copy")
    at = data.find(pattern)
    while at >= 0:
        shutil.copyfile(region, copy)
        overwrite(copy, at)
        with Tree.open(copy) as tree:
            try:
                derived = bool(tree.check()) and not tree.repair()
            except RegionCorrupt:
                derived = False
        copy.unlink()
        if derived:
            overwrite(region, at)
            return
        at = data.find(pattern, at + 8)
    pytest.fail("the region has no derived number of this charge")


def overwrite(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack("=q", CHARGE + 5))


def test_doctor_reports_nothing_about_a_sound_region(place: Place) -> None:
    place.mount()
    place.root.mkdir("group").charge(5)
    assert healthy(place.path) and healthy(place.region)
    place.signal(signal.SIGKILL)
    assert healthy(place.path) and healthy(place.region)
    place.mount()
    place.umount("--keep")
    assert healthy(place.path) and healthy(place.region)
    with Tree.create(place.directory / "region") as tree:
        tree.root.mkdir("group")["memory"].charge(5)
        assert healthy(tree.path)


@pytest.mark.any_user
def test_doctor_does_not_disturb_a_live_mount(place: Place) -> None:
    place.mount()
    group = place.root.mkdir("group")
    holder = HolderProcess(group.path)
    for number in range(1, 4):
        holder.charge(1000)
        assert healthy(place.path)
        done = run_here("doctor", place.path, "--repair")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert (place.root.usage, group.usage) == (1000 * number, 1000 * number)
    holder.uncharge(3000)
    holder.end()
    place.umount()


@pytest.mark.any_user
@pytest.mark.parametrize("served", [True, False], ids=["served", "not served"])
def test_doctor_prints_and_repairs_differences(place: Place, served: bool) -> None:
    region = place.directory / "region"
    place.mount("--region", region, "--groups", "16", "--cells", "64")
    group = place.root.mkdir("group")
    group.charge(CHARGE)
    if not served:
        place.umount("--keep")
    damage(region)
    done = run_here("doctor", place.path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("\n") >= 1
    again = run_here("doctor", "--json", place.path)
    assert (again.returncode, json.loads(again.stdout)) == (1, done.stdout.splitlines()), (
        "a check without --repair changed the region"
    )
    mended = run_here("doctor", place.path, "--repair")
    assert (mended.returncode, mended.stdout, mended.stderr) == (0, done.stdout, "")
    assert healthy(place.path)
    assert json.loads(run_here("doctor", "--json", place.path).stdout) == []
    if not served:
        place.mount()
    assert place.root.usage == group.usage == CHARGE
    group.uncharge(CHARGE)
    place.umount()


# ---- paths that doctor cannot check


def test_a_group_is_refused_where_a_mount_point_is_needed(place: Place) -> None:
    place.mount()
    group = place.root.mkdir("group")
    for words in (["doctor", group.path], ["save", group.path, "-"]):
        assert refused(run_here(*words), group.path) == "a group of a tree: name its mount point"
    place.umount()


@pytest.mark.user
def test_an_unreadable_path_is_an_error_of_one_line(place: Place) -> None:
    inside = place.path / "inside"
    inside.mkdir()
    place.path.chmod(0)
    for words in (["doctor", inside], ["save", inside, "-"], ["umount", inside]):
        assert refused(run_here(*words), inside) == "Permission denied"
    for words in (["doctor", place.path], ["save", place.path, "-"]):
        assert refused(run_here(*words), place.path).startswith("no fsmount mount, and no counters")
    place.path.chmod(0o755)


def test_a_path_without_a_region_is_an_error(place: Place) -> None:
    missing = place.directory / "missing"
    assert refused(run_here("doctor", missing), missing) == "there is no such mount point or region"
    assert refused(run_here("doctor", place.path), place.path).startswith("no fsmount mount, and no counters")
    assert refused(run_here("doctor", "/proc"), "/proc") == "not an fsmount mount but of type proc"
    file = place.directory / "file"
    file.write_text("precious")
    text = refused(run_here("doctor", file, "--repair"), file)
    assert text.startswith(f"the region {file} cannot be used: too short to be a region of fsmount")
    file.write_bytes(b"precious" * 10000)
    assert "not a region of fsmount" in refused(run_here("doctor", file, "--repair"), file)
    assert file.read_bytes() == b"precious" * 10000


def test_doctor_refuses_a_region_of_another_version(place: Place) -> None:
    region = place.directory / "region"
    Tree.create(region).close()
    with region.open("r+b") as file:
        file.seek(8)  # the version follows 8 bytes of magic
        file.write(b"\xff")
    text = refused(run_here("doctor", region, "--repair"), region)
    assert "layout version" in text and text.endswith(
        "; use the version of fsmount that made it, or remove it to start with new counters"
    )


def test_doctor_leaves_a_region_that_is_damaged_beyond_repair_unchanged(place: Place) -> None:
    region = place.directory / "region"
    with Tree.create(region, groups=64, cells=256) as tree:
        for number in range(20):
            tree.root.mkdir(str(number))["memory"].charge_common(5)
    size = region.stat().st_size
    with region.open("r+b") as file:
        for offset in range(8192, size, 4096):  # the header stays, which marks the file as a region
            file.seek(offset)
            file.write(b"\xff\x00\x5a\xff" * 256)
    damaged = region.read_bytes()
    done = run_here("doctor", region, "--repair")
    assert done.returncode == 1
    assert "group 0: state" in done.stdout
    assert done.stderr.startswith(f"fsmount: {region}: damaged beyond repair: ")
    assert done.stderr.endswith(f"; remove {region} to start again\n")
    assert region.read_bytes() == damaged


@pytest.mark.root
def test_only_its_owner_and_root_open_a_region(place: Place) -> None:
    region = place.directory / "region"
    Tree.create(region).close()
    os.chown(region, 12345, 12345)
    assert healthy(region)

    def attempt() -> str:
        try:
            with open_tree(str(region)):
                return "opened"
        except UserError as refusal:
            return str(refusal)

    assert as_user(12345, attempt) == "opened"
    assert as_user(23456, attempt) == f"the region {region} cannot be used: Permission denied; ask its owner or root"
    os.chown(region, 0, 0)
