"""fsmount save: a complete description of the tree, or an unchanged file."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.place import Place, refused, run_here
from tests.mounts import AS_ROOT


def saved(*arguments: object) -> str:
    """The output of a save that succeeds without an error."""
    done = run_here("save", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def furnish(place: Place) -> None:
    """Makes groups with every kind of setting that save writes, and a charge."""
    web = place.root.mkdir("web", 0o750)
    api = web.mkdir("api")
    os.mkdir(os.fsencode(place.path) + b"/\xff\"'%\x01")
    place.root.set_limit("1G")
    web.set_limit(1000000)
    web.write("soft_limit", "64K")
    api.charge(5)
    os.chmod(web / "memory.limit_in_bytes", 0o664)
    if AS_ROOT:
        for name in ["", *os.listdir(api.path)]:
            os.chown(api / name, 1234, 2345)
        os.chown(api / "memory.lease", 4321, -1)
        os.chown(web.path, 1234, -1)


def stats(place: Place) -> dict[str, tuple[int, int, int]]:
    found = {}
    for directory, _, files in os.walk(place.path):
        for path in [directory, *(os.path.join(directory, name) for name in files)]:
            status = os.stat(path)
            found[os.path.relpath(path, place.path)] = (status.st_mode, status.st_uid, status.st_gid)
    return found


@pytest.mark.any_user
def test_a_saved_tree_is_mounted_again_with_every_setting(place: Place) -> None:
    place.mount("--batch", "0", "--groups", "64")
    furnish(place)
    file = place.directory / "tree.toml"
    done = run_here("save", place.path, file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = file.read_text()
    before = stats(place)
    place.root.child("web").child("api").uncharge(5)
    place.umount()
    place.mount("--config", file)
    assert saved(place.path, "-") == text
    assert stats(place) == before
    web = place.root.child("web")
    assert (place.root.limit, web.limit, web.soft_limit) == (1 << 30, 1000000, 65536)
    assert place.root.usage == 0, "save wrote a charge"
    assert place.root.stat()["batch"] == 0
    place.umount()


def test_a_saved_tree_is_readable_text(place: Place) -> None:
    place.mount("--resource", "memory", "--resource", "tokens:count", "--cells", "4096")
    web = place.root.mkdir("web")
    web.mkdir("api").set_limit("512M")
    web.path.joinpath("tokens.limit").write_text("1024")
    os.chmod(web.path, 0o700)
    assert saved(place.path, "-").partition("\n\n")[2] == (
        '[resources]\nmemory = "bytes"\ntokens = "count"\n\n'
        "[capacity]\ncells = 4096\n\n"
        '["/web"]\nmode = "0700"\ntokens.limit = 1024\n\n'
        '["/web/api"]\nmemory.limit = "512M"\n'
    )
    place.umount()


@pytest.mark.root
def test_save_writes_the_names_of_owners_that_have_names(place: Place) -> None:
    place.mount()
    web = place.root.mkdir("web")
    os.chown(web.path, 1, 1)
    os.chown(web / "memory.lease", 3999999999, -1)
    lines = saved(place.path, "-").partition('["/web"]\n')[2].splitlines()
    assert lines == [
        'owner = "daemon"',
        'group = "daemon"',
        'files."*".owner = "root"',
        'files."*".group = "root"',
        'files."memory.lease".owner = 3999999999',
    ]
    place.umount()


# ---- sources


@pytest.mark.any_user
def test_a_tree_is_saved_by_its_region_its_dead_mount_and_its_mount_point(place: Place) -> None:
    place.mount()
    furnish(place)
    text = saved(place.path, "-")
    assert saved(place.region, "-") == text
    place.signal(signal.SIGKILL)
    assert saved(place.path, "-") == saved(place.region, "-") == text
    place.mount()
    place.umount("--keep")
    assert saved(place.path, "-") == saved(place.region, "-") == text


def test_save_accepts_file_and_mount_point_in_either_order(place: Place) -> None:
    place.mount()
    place.root.mkdir("web")
    text = saved(place.path, "-")
    for file in (place.directory / "new.toml", place.directory / "old.toml"):
        assert saved(file, place.path) == ""
        assert file.read_text() == text
        assert saved(place.path, file) == ""
    place.umount()


def test_save_without_a_mount_point_saves_the_only_mount(place: Place, other_place: Place) -> None:
    lines = map(str.split, Path("/proc/self/mounts").read_text().splitlines())
    if any(fields[2] == "fuse.fsmount" for fields in lines):
        pytest.skip("other mounts exist here")
    assert refused(run_here("save", "-"), "-") == "you have no fsmount mount: name a mount point or a region"
    place.mount()
    place.root.mkdir("web")
    assert saved("-") == saved(place.path, "-")
    other_place.mount()
    both = ", ".join(sorted([str(place.path), str(other_place.path)]))
    assert refused(run_here("save", "-"), "-") == f"you have several fsmount mounts, {both}: name one"
    place.umount()
    other_place.umount()


def test_a_path_without_a_tree_is_an_error(place: Place) -> None:
    file = place.directory / "tree.toml"
    text = refused(run_here("save", place.path, file), place.path)
    assert text == "no fsmount mount, and no counters of an earlier mount: name another, or mount there"
    missing = place.directory / "missing"
    assert refused(run_here("save", missing, file), missing) == "there is no such mount point or region"
    assert refused(run_here("save", "/proc", file), "/proc") == "not an fsmount mount but of type proc"
    assert not file.exists()


# ---- destinations


@pytest.mark.any_user
def test_an_existing_file_keeps_its_mode_and_owner(place: Place) -> None:
    place.mount()
    file = place.directory / "tree.toml"
    file.write_text("old")
    file.chmod(0o604)
    if AS_ROOT:
        os.chown(file, 1234, 2345)
    link = place.directory / "link"
    link.symlink_to("tree.toml")
    before = file.stat()
    saved(place.path, link)
    after = file.stat()
    assert file.read_text().startswith("#") and link.is_symlink()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    place.umount()


def test_the_text_is_on_the_disk_before_it_replaces_the_file(place: Place) -> None:
    place.mount()
    file = place.directory / "tree.toml"
    calls = place.directory / "calls"
    trace = ["strace", "-qq", "-o", str(calls), "-e", "trace=fsync,/rename", "-e", "signal=none"]
    subprocess.run([*trace, sys.executable, "-m", "fsmount", "save", place.path, file], check=True, timeout=60)
    names = [line.partition("(")[0] for line in calls.read_text().splitlines()]
    assert [name.rstrip("at2") for name in names] == ["fsync", "rename", "fsync"]


def test_the_umask_applies_to_a_new_file(place: Place) -> None:
    place.mount()
    file = place.directory / "tree.toml"
    command = [sys.executable, "-m", "fsmount", "save", str(place.path), str(file)]
    subprocess.run(command, check=True, umask=0o027)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    place.umount()


def test_a_failed_save_leaves_the_old_file_unchanged(place: Place) -> None:
    place.mount()
    for number in range(30):
        place.root.mkdir(f"group-{number}")
    file = place.directory / "tree.toml"
    file.write_text("old")
    done = subprocess.run(
        [sys.executable, "-m", "fsmount", "save", str(place.path), str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert refused(done, file) == "File too large"
    assert file.read_text() == "old"
    assert sorted(path.name for path in place.directory.iterdir()) == ["tree", "tree.toml"]
    place.umount()


def test_save_names_the_reason_why_a_path_cannot_be_written(place: Place) -> None:
    place.mount()
    file = place.directory / "missing" / "tree.toml"
    assert refused(run_here("save", place.path, file), file) == "No such file or directory: make its directory first"
    assert refused(run_here("save", place.path, "missing/tree.toml", cwd=place.directory), "missing/tree.toml")
    assert (
        refused(run_here("save", place.path, f"{place.directory}/"), f"{place.directory}/")
        == "Is a directory: name a file in it"
    )
    assert refused(run_here("save", place.path, "/dev/full"), "/dev/full") == "No space left on device"
    place.umount()


@pytest.mark.user
def test_save_does_not_replace_a_read_only_file(place: Place) -> None:
    place.mount()
    file = place.directory / "tree.toml"
    file.write_text("old")
    file.chmod(0o444)
    assert refused(run_here("save", place.path, file), file) == "Permission denied"
    assert file.read_text() == "old"
    place.umount()


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("nope/x.toml", "No such file or directory: make its directory first"),
        ("plain/x.toml", "Not a directory: a part of its path is a file; name another path"),
        (".", "Is a directory: name a file in it"),
        (
            "tree/x.toml",
            "Operation not permitted: no file can be made there, as in a tree of counters; name another path",
        ),
    ],
)
def test_an_error_of_save_names_the_file_and_the_remedy(place: Place, file: str, error: str) -> None:
    place.mount()
    (place.directory / "plain").touch()
    path = place.directory / file if file != "." else place.directory
    assert refused(run_here("save", place.path, path), path) == error
    assert sorted(entry.name for entry in place.directory.iterdir()) == ["plain", "tree"]
    place.umount()


def test_a_file_without_a_name_is_refused(place: Place) -> None:
    place.mount()
    assert refused(run_here("save", place.path, ""), place.path).startswith("an empty name ")
    place.umount()


def test_an_error_about_a_config_that_is_no_file_names_the_remedy(place: Place) -> None:
    for file, error in (
        (place.directory / "nope.toml", "No such file or directory: name a file that fsmount save wrote"),
        (place.directory, "Is a directory: name a file"),
    ):
        assert refused(run_here("mount", place.path, "--config", file), file) == error
        assert not place.mounts
