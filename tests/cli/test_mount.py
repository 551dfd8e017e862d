"""fsmount mount: what must be so before it mounts, and what is so when it returns."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fsmount.admin import region_path
from fsmount.control_files.lease import GroupLeaseFile
from fsmount.protocol.file_names import METRICS_FILE
from tests.cli.namespace import namespace
from tests.cli.place import Place, has_ended, refused, run, run_here
from tests.holder_process import HolderProcess, Refused
from tests.mounts import as_user, eventually, fails_with, resource_files

pytestmark = pytest.mark.any_user

# ---- in the background


def test_the_files_are_there_when_it_returns(place: Place) -> None:
    place.mount()
    assert set(os.listdir(place.path)) == {*resource_files(), GroupLeaseFile.name, METRICS_FILE}
    place.umount()
    assert os.listdir(place.path) == []


def test_the_daemon_is_nobodys_child_and_holds_nothing_of_its_starter(place: Place) -> None:
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "fsmount", "mount", str(place.path)]
    subprocess.run(command, check=True, timeout=60, pass_fds=[writer])
    os.close(writer)
    place.daemons.add(place.daemon)
    process = Path(f"/proc/{place.daemon}")
    session = os.getsid(place.daemon)
    assert session != place.daemon and session != os.getsid(0)
    assert os.readlink(process / "cwd") == "/"
    assert [os.readlink(process / "fd" / number) for number in "012"] == ["/dev/null"] * 3
    assert os.read(reader, 1) == b"", "the daemon kept a descriptor it inherited"
    os.close(reader)
    place.umount()


def test_it_is_of_type_fuse_fsmount(place: Place) -> None:
    place.mount()
    source, _, kind, options, *_ = place.mounts[0]
    assert (source, kind) == ("fsmount", "fuse.fsmount")
    assert "default_permissions" in options.split(",")
    place.umount()


def test_a_relative_path_and_a_link_lead_to_the_same_mount(place: Place) -> None:
    link = place.directory / "link"
    link.symlink_to(place.path)
    done = run("mount", "link", cwd=place.directory)
    assert (done.returncode, done.stderr) == (0, "")
    place.daemons.add(place.daemon)
    assert refused(run("mount", place.path), place.path).startswith("already an fsmount mount")
    done = run("umount", "tree", cwd=place.directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert not place.mounts


def test_a_mount_point_may_have_any_name() -> None:
    strange = Place("a b\tc\\d,e\n% é")
    try:
        strange.mount()
        strange.root.charge(5)
        strange.signal(signal.SIGKILL)
        strange.mount()
        assert strange.root.usage == 5
        strange.umount()
    finally:
        strange.destroy()


def test_a_caller_whose_standard_streams_are_closed_is_served_like_any_other(place: Place) -> None:
    def status_of(*words: object) -> int:
        closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "fsmount", *map(str, words)]
        return subprocess.run(closed, timeout=60, check=False).returncode

    assert status_of("mount", place.path) == 0
    place.daemons.add(place.daemon)
    place.root.set_limit(1)
    out = place.directory / "out"
    command = f"exec 4>{out}; echo a; echo b >&2; cat {place.root.file('usage')} >&4"
    assert status_of("run", "-g", place.path, "-r", "memory=1", "--", "sh", "-c", command) == 0
    assert out.read_text() == "1\n"
    assert status_of("charge", place.path, "memory=2") == 75
    assert [status_of(name, place.path) for name in ("get", "tree", "top", "umount")] == [0] * 4


# ---- in the foreground


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_in_the_foreground_it_ends_well_by_a_signal(place: Place, number: signal.Signals) -> None:
    process = foreground(place)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert not place.mounts and place.region is None


def test_a_hangup_that_is_ignored_stays_so(place: Place) -> None:
    process = foreground(place, under=("nohup",))
    process.send_signal(signal.SIGHUP)
    assert place.root.usage == 0
    process.terminate()
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_in_the_foreground_it_ends_when_somebody_unmounts(place: Place) -> None:
    process = foreground(place)
    subprocess.run(["fusermount3", "-u", str(place.path)], check=True)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert place.region is None


def test_debug_tells_more(place: Place) -> None:
    process = foreground(place, "--debug")
    assert process.stderr is not None and any("serving" in line for line in process.stderr)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "SIGTERM" in err


def foreground(place: Place, *options: str, under: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*under, sys.executable, "-m", "fsmount", "mount", str(place.path), "-f", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(lambda: process.poll() is not None or (place.path / ".fsmount").exists(), what="mounted")
    assert process.poll() is None, process.communicate()
    place.daemons.add(process.pid)
    return process


# ---- FUSE options


def test_options_arrive(place: Place) -> None:
    place.mount("-o", "ro,fsname=some\\,thing", "-o", "noexec")
    source, _, kind, options, *_ = place.mounts[0]
    assert (source, kind) == ("some,thing", "fuse.fsmount")
    assert {"ro", "noexec"} <= set(options.split(","))
    with fails_with(errno.EROFS):
        os.mkdir(place.path / "group")
    place.umount()


@pytest.mark.parametrize(("given", "there"), [("ro,rw", "rw"), ("rw,ro", "ro")])
def test_of_two_options_the_later_counts(place: Place, given: str, there: str) -> None:
    place.mount("-o", given)
    assert there in place.mounts[0][3].split(",")
    place.umount()


@pytest.mark.parametrize(("option", "meant"), [("bogus", ""), ("allow_otter=3", "; did you mean allow_other?")])
def test_an_unknown_option_is_named_with_the_nearest_known_one(place: Place, option: str, meant: str) -> None:
    text = refused(run("mount", place.path, "-o", option), place.path)
    assert text == f"FUSE does not know the option {option}: correct -o{meant}"
    assert not place.mounts and place.region is None


def test_the_type_cannot_be_changed(place: Place) -> None:
    assert "subtype" in refused(run("mount", place.path, "-o", "subtype=sshfs"), place.path)


@pytest.mark.root
def test_allow_other_lets_others_in(place: Place) -> None:
    place.mount("-o", "allow_other")
    assert "allow_other" in place.mounts[0][3].split(",")
    place.umount()


@pytest.mark.user
def test_an_ordinary_user_is_told_what_allow_other_takes(place: Place) -> None:
    lines = Path("/etc/fuse.conf").read_text().splitlines()
    done = run("mount", place.path, "-o", "allow_other")
    if "user_allow_other" in lines:
        assert done.returncode == 0
        place.daemons.add(place.daemon)
        place.umount()
    else:
        assert "user_allow_other in /etc/fuse.conf" in refused(done, place.path)


# ---- what cannot be mounted on


def test_a_mount_point_that_is_not_there(place: Place) -> None:
    missing = place.directory / "missing"
    assert refused(run("mount", missing), missing) == "there is no such directory: make it with mkdir"


def test_a_mount_point_that_is_no_directory(place: Place) -> None:
    file = place.directory / "file"
    file.touch()
    assert refused(run("mount", file), file).startswith("not a directory")


def test_a_mount_point_that_is_mounted_already(place: Place) -> None:
    place.mount()
    place.root.charge(3)
    assert refused(run("mount", place.path), place.path).startswith("already an fsmount mount")
    assert place.root.usage == 3
    place.umount()


@pytest.mark.user
def test_a_mount_point_that_is_not_ones_own() -> None:
    assert "a directory that this user owns" in refused(run("mount", "/mnt"), "/mnt")


@pytest.mark.user
def test_without_fusermount3_an_ordinary_user_is_told_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(place.directory))
    assert "install the package fuse3" in refused(run("mount", place.path), place.path)


@pytest.mark.parametrize("word", ["a.b", "a=b", "mem,tokens:count", "-a", "", ":count", "a b", "a\u200b", "é" * 32])
def test_a_resource_that_no_command_could_name_is_refused(place: Place, word: str) -> None:
    done = run("mount", place.path, "--resource", word)
    assert (done.returncode, done.stdout) == (2, "")
    assert "a resource's name has 1 to 63 bytes" in done.stderr
    assert place.region is None


def test_a_resource_that_is_accepted_can_be_named_by_every_command(place: Place) -> None:
    names = ["a-b", "lease", "metrics", "wait", "give", "max", "+", "é", "q\"'\\$", "%41", "*"]
    place.mount(*(word for name in names for word in ("--resource", f"{name}:count")))
    for name in names:
        assert run_here("set", place.path, f"{name}.limit=5").returncode == 0
        assert run_here("charge", place.path, f"{name}=2").returncode == 0
        assert run("run", "-g", place.path, "-r", f"{name}=1", "--", "true").returncode == 0
        assert run_here("get", place.path, f"{name}.usage").stdout == "2\n"
        with (place.path / "lease").open("r+b", buffering=0) as lease:
            lease.write(os.fsencode(f"{name}=3"))
            assert run_here("get", place.path, f"{name}.usage").stdout == "5\n"
        assert run_here("uncharge", place.path, f"{name}=2").returncode == 0
    saved = place.directory / "saved.toml"
    assert run("save", place.path, saved).returncode == 0
    place.umount()
    place.mount("--config", saved)
    for name in names:
        assert run_here("get", place.path, f"{name}.limit").stdout == "5\n"


def test_a_region_whose_directory_is_not_there(place: Place) -> None:
    text = refused(run("mount", place.path, "--region", place.directory / "missing" / "region"), place.path)
    assert text.startswith("there is no directory for the region")


# ---- the region


def test_the_region_can_be_elsewhere_and_is_found_again(place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region)
    assert place.told()["region"] == str(region)
    assert region.stat().st_mode & 0o777 == 0o600
    place.root.charge(7)
    place.signal(signal.SIGKILL)
    place.mount()
    assert place.told()["region"] == str(region)
    assert place.root.usage == 7
    place.umount()
    assert not region.exists() and place.region is None


def test_a_region_is_served_once(place: Place, other_place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region)
    text = refused(run("mount", other_place.path, "--region", region), other_place.path)
    assert text.startswith(f"the region {region} is served at {place.path} by ")
    assert f"(pid {place.daemon})" in text
    place.umount()


def test_a_region_can_be_served_elsewhere_next(place: Place, other_place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region)
    place.root.charge(7)
    place.umount("--keep")
    other_place.mount("--region", region)
    assert other_place.root.usage == 7
    other_place.umount()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--resource", "memory:count"], "the existing counters are memory:bytes, not those of --resource"),
        (["--resource", "memory", "--resource", "disk"], "the existing counters are memory:bytes"),
        (["--groups", "17"], "the existing region has room for 64 groups, not 17"),
        (["--holders", "17"], "the existing region has room for 32 holders, not 17"),
        (["--cells", "17"], "the existing region has room for 128 cells, not 17"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_asked_must_be_what_the_region_has(place: Place, options: list[str], told: str) -> None:
    place.mount("--groups", "64", "--holders", "32", "--cells", "128")
    place.root.charge(7)
    place.umount("--keep")
    assert refused(run("mount", place.path, *options), place.path).startswith(told)
    place.mount("--resource", "memory:bytes", "--groups", "64", "--batch", "0")
    assert (place.root.usage, place.root.stat()["batch"]) == (7, 0)
    place.umount()


def test_what_is_no_region_is_not_overwritten(place: Place) -> None:
    file = place.directory / "precious"
    file.write_bytes(b"precious" * 1000)
    file.chmod(0o600)
    assert refused(run("mount", place.path, "--region", file), place.path).startswith(
        f"the region {file} cannot be used"
    )
    assert file.read_bytes() == b"precious" * 1000


@pytest.mark.parametrize(
    ("offset", "told"),
    [(8, "layout version"), (12, "made on another architecture"), (16, "bytes long"), (0, "not a region of fsmount")],
    ids=["version", "architecture", "size", "magic"],
)
def test_a_region_that_is_not_for_this_program_is_refused_and_stays(place: Place, offset: int, told: str) -> None:
    """What says what a region is comes first: 8 bytes of magic, the version, the architecture, the size."""
    region = place.directory / "region"
    place.mount("--region", region, "--groups", "64", "--cells", "256")
    place.root.charge(7)
    place.umount("--keep")
    there = region.read_bytes()
    changed = there[:offset] + bytes([there[offset] ^ 0xFF]) + there[offset + 1 :]
    region.write_bytes(changed)
    text = refused(run("mount", place.path), place.path)
    assert text.startswith(f"the region {region} cannot be used: ") and told in text
    assert text.endswith("; mount it with the version that made it, or remove it to start with new counters")
    assert region.read_bytes() == changed and not place.mounts
    region.write_bytes(there)
    place.mount()
    assert place.root.usage == 7
    place.umount()


def test_a_region_that_was_cut_off_is_refused_and_stays(place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region, "--groups", "64", "--cells", "256")
    place.root.charge(7)
    place.umount("--keep")
    there = region.read_bytes()
    for length in (0, 100, len(there) - 1):
        region.write_bytes(there[:length])
        text = refused(run("mount", place.path), place.path)
        assert re.search(r"too short to be a region|bytes long, its geometry needs", text), text
        assert region.read_bytes() == there[:length] and not place.mounts
    region.write_bytes(there)
    place.mount()
    assert place.root.usage == 7
    place.umount()


def test_a_region_that_is_removed_while_it_is_served_costs_no_one_a_charge(place: Place) -> None:
    """The memory is there as long as somebody has it; who comes later charges through files."""
    place.mount()
    group = place.root.mkdir("group")
    with HolderProcess(group.path, transport="memory") as process:
        process.charge(5)
        assert place.region is not None
        place.region.unlink()
        with HolderProcess(group.path) as late:
            late.charge(20)
            process.charge(5)
            assert group.usage == 30
        with pytest.raises(Refused, match="the tree's region cannot be used from here: No such file"):
            HolderProcess(group.path, transport="memory")
    eventually(group.empty)
    place.umount()
    assert not place.mounts


def test_what_was_put_in_the_place_of_a_region_that_is_served_stays(place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region)
    group = place.root.mkdir("group")
    region.unlink()
    region.write_bytes(b"precious")
    with pytest.raises(Refused, match="the tree's region cannot be used from here"):
        HolderProcess(group.path, transport="memory")
    with HolderProcess(group.path) as process:
        process.charge(5)
        assert group.usage == 5
    eventually(group.empty)
    place.umount()
    assert region.read_bytes() == b"precious"


def test_a_damaged_region_is_refused_and_stays(place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region, "--groups", "64", "--cells", "256")
    place.root.charge(7)
    place.umount("--keep")
    size = region.stat().st_size
    with region.open("r+b") as file:
        for offset in range(4096, size, 4096):  # the header stays, or nobody could tell that this is a region
            file.seek(offset)
            file.write(b"\xff\x00\x5a\xff" * 256)
    for options in ([], ["--batch", "0"]):
        text = refused(run("mount", place.path, *options), place.path)
        assert text.startswith(f"the region {region} is damaged: ") and text.endswith(
            "; remove it to start with new counters"
        )
    assert region.stat().st_size == size and not place.mounts
    region.unlink()
    place.mount()
    place.umount()


def test_a_region_in_the_place_of_a_link_or_open_to_others_is_refused(place: Place) -> None:
    link = place.directory / "link"
    link.symlink_to(place.directory / "elsewhere")
    assert "cannot be opened" in refused(run("mount", place.path, "--region", link), place.path)
    region = place.directory / "region"
    place.mount("--region", region)
    place.umount("--keep")
    region.chmod(0o666)
    assert "other users may write to the region" in refused(run("mount", place.path), place.path)
    region.chmod(0o600)
    place.mount()
    place.umount()


def test_a_region_where_others_could_replace_it_is_refused(place: Place) -> None:
    shared = place.directory / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    text = refused(run("mount", place.path, "--region", shared / "region"), place.path)
    assert text.startswith("other users could replace the region")


@pytest.mark.user
def test_a_region_of_another_user_is_refused(place: Place) -> None:
    text = refused(run("mount", place.path, "--region", "/etc/passwd"), place.path)
    assert text == "the region /etc/passwd cannot be opened (Permission denied): name another with --region"


@pytest.mark.root
def test_a_mount_of_another_user_is_his_alive_or_dead(place: Place) -> None:
    """Root unmounts it and keeps the region, which still is the user's."""
    user, group = pwd.getpwnam("nobody").pw_uid, place.root / "group"  # fusermount3 wants to know his name
    os.chown(place.path, user, user)

    def as_him(*arguments: str) -> str:
        return str(as_user(user, lambda: (done := run(*arguments, place.path)).stderr or str(done.returncode)))

    assert as_him("mount") == "0"
    as_user(user, lambda: os.mkdir(group))
    daemon = int(as_user(user, lambda: place.daemon))
    place.daemons.add(daemon)
    told = f"already an fsmount mount, of user {user}: choose another directory or unmount it first"
    assert refused(run("mount", place.path), place.path) == told
    os.kill(daemon, signal.SIGKILL)
    eventually(lambda: has_ended(daemon))
    assert refused(run("mount", place.path), place.path) == told
    region = region_path.find(str(place.path), user)
    place.umount("--keep")
    assert not place.mounts and region is not None and region_path.find(str(place.path), user) == region
    os.chown(place.path, 0, 0)
    place.mount()
    assert "belongs to user" not in str(place.region) and "already" in as_him("mount")
    place.umount()
    os.chown(place.path, user, user)
    assert as_him("mount") == "0"
    assert as_user(user, lambda: os.path.isdir(group))
    assert as_him("umount", "--quiet") == "0"
    assert region_path.find(str(place.path), user) is None


@pytest.mark.root
def test_a_region_of_another_user_is_refused_also_for_root(place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region)
    place.umount("--keep")
    os.chown(region, 12345, 12345)
    assert "belongs to user 12345" in refused(run("mount", place.path), place.path)
    os.chown(region, 0, 0)
    place.mount()
    place.umount()


def test_what_a_maker_that_was_killed_left_unfinished_is_removed_by_the_next(place: Place) -> None:
    place.mount()
    region = place.region
    assert region is not None
    place.umount()
    region.parent.mkdir(mode=0o700, exist_ok=True)
    unfinished = region.with_name(region.name + ".new-5")
    with unfinished.open("wb") as file:
        file.truncate(1 << 20)
    unfinished.chmod(0o600)
    place.mount()
    assert place.root.usage == 0 and not unfinished.exists()
    place.umount()


def test_a_maker_that_was_killed_after_all_but_the_last_step_has_made_the_region(place: Place) -> None:
    place.mount()
    place.root.mkdir("group").charge(5)
    region = place.region
    assert region is not None
    place.umount("--keep")
    own_name = region.with_name(region.name + ".new-5")
    os.link(region, own_name)
    place.mount()
    assert place.root.usage == 5 and not own_name.exists()
    place.umount()


def test_a_mount_that_fails_leaves_no_region(place: Place) -> None:
    run("mount", place.path, "-o", "bogus")
    assert place.region is None


@pytest.mark.root
def test_the_first_lease_where_shared_memory_is_full_is_refused_and_harms_nobody(place: Place) -> None:
    """With so few holders the leases begin in the midst of a page."""
    with namespace("mount -t tmpfs -o size=2m,mode=1777 none /dev/shm") as full:
        fsmount = (sys.executable, "-m", "fsmount")
        full.does(*fsmount, "mount", place.path, "--holders", "100")
        full.run("dd", "if=/dev/zero", "of=/dev/shm/filler", "bs=4k")
        done = full.run("bash", "-c", 'echo 5 3<>"$0" >&3', place.path / "memory.lease")
        told = done.stderr
        assert full.does("cat", place.path / "memory.usage_in_bytes") == "0\n"
        full.does(*fsmount, "umount", place.path)
    assert "No space left on device" in told


@pytest.mark.root
def test_a_region_that_would_not_be_found_again_is_not_made(place: Place) -> None:
    """There is no room for the link that leads to it."""
    region = place.directory / "region"
    with namespace("mount -t tmpfs -o nr_inodes=2,mode=1777 none /dev/shm") as full:
        done = full.run(sys.executable, "-m", "fsmount", "mount", place.path, "--region", region)
    told = refused(done, place.path)
    assert told.startswith(f"the link to the region {region} cannot be made: No space left on device")
    assert not region.exists()


def test_a_daemon_whose_starter_is_gone_ends(place: Place) -> None:
    """Nobody would know of the mount."""
    start_by_one_who_is_killed(place)
    assert not place.mounts and place.region is None


def test_the_counters_from_before_outlast_a_daemon_whose_starter_is_gone(place: Place) -> None:
    place.mount()
    place.root.charge(5)
    place.umount("--keep")
    start_by_one_who_is_killed(place, "--keep")
    place.mount()
    assert place.root.usage == 5
    place.umount()


def start_by_one_who_is_killed(place: Place, *too_late: str) -> None:
    """Returns when the daemon has ended.  Where it had mounted already it may have told of it, and is unmounted."""
    mounted = True
    while mounted:
        starter = subprocess.Popen([sys.executable, "-m", "fsmount", "mount", str(place.path)])
        eventually(lambda starter=starter: starter.poll() is not None or has_daemon(place), what="the fork")  # type: ignore[misc]
        starter.kill()
        starter.wait()
        mounted = bool(place.mounts)
        if mounted:
            run("umount", place.path, *too_late)
        eventually(lambda: not place.processes, what="the end of the daemon")


def has_daemon(place: Place) -> bool:
    """Whether somebody there is in a session of his own: what is started besides is not."""
    with contextlib.suppress(ProcessLookupError):
        return any(os.getsid(pid) != os.getsid(0) for pid in place.processes)
    return False


def test_the_command_is_found_in_path(place: Place) -> None:
    command = shutil.which("fsmount", path=os.path.dirname(sys.executable))
    if command is None:
        pytest.skip("the package is not installed here")
    # by this interpreter: the script's own first line may name a path that this user cannot reach
    subprocess.run([sys.executable, command, "mount", str(place.path)], check=True, timeout=60)
    place.daemons.add(place.daemon)
    pid = place.daemon
    subprocess.run([sys.executable, command, "umount", str(place.path)], check=True, timeout=60)
    assert has_ended(pid)
