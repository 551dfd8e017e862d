"""fsmount mount: its preconditions, its options, and the state when it returns."""

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


def test_the_files_exist_when_mount_returns(place: Place) -> None:
    place.mount()
    assert set(os.listdir(place.path)) == {*resource_files(), GroupLeaseFile.name, METRICS_FILE}
    place.umount()
    assert os.listdir(place.path) == []


def test_the_daemon_is_detached_and_keeps_no_descriptor_of_its_command(place: Place) -> None:
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


def test_a_mount_has_the_type_fuse_fsmount(place: Place) -> None:
    place.mount()
    source, _, kind, options, *_ = place.mounts[0]
    assert (source, kind) == ("fsmount", "fuse.fsmount")
    assert "default_permissions" in options.split(",")
    place.umount()


def test_a_relative_path_and_a_link_lead_to_the_same_mount(place: Place) -> None:
    link = place.directory / "link"
    link.symlink_to(place.path)
    done = run_here("mount", "link", cwd=place.directory)
    assert (done.returncode, done.stderr) == (0, "")
    place.daemons.add(place.daemon)
    assert refused(run_here("mount", place.path), place.path).startswith("already an fsmount mount")
    done = run_here("umount", "tree", cwd=place.directory)
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


def test_commands_work_with_closed_standard_streams(place: Place) -> None:
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
def test_a_signal_ends_a_foreground_daemon_with_status_0(place: Place, number: signal.Signals) -> None:
    process = foreground(place)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert not place.mounts and place.region is None


def test_a_daemon_under_nohup_ignores_a_hangup(place: Place) -> None:
    process = foreground(place, under=("nohup",))
    process.send_signal(signal.SIGHUP)
    assert place.root.usage == 0
    process.terminate()
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_an_unmount_ends_a_foreground_daemon_with_status_0(place: Place) -> None:
    process = foreground(place)
    subprocess.run(["fusermount3", "-u", str(place.path)], check=True)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert place.region is None


def test_debug_logs_the_start_and_the_signal(place: Place) -> None:
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


def test_fuse_options_reach_the_kernel(place: Place) -> None:
    place.mount("-o", "ro,fsname=some\\,thing", "-o", "noexec")
    source, _, kind, options, *_ = place.mounts[0]
    assert (source, kind) == ("some,thing", "fuse.fsmount")
    assert {"ro", "noexec"} <= set(options.split(","))
    with fails_with(errno.EROFS):
        os.mkdir(place.path / "group")
    place.umount()


@pytest.mark.parametrize(("given", "there"), [("ro,rw", "rw"), ("rw,ro", "ro")])
def test_the_later_of_two_contradicting_options_wins(place: Place, given: str, there: str) -> None:
    place.mount("-o", given)
    assert there in place.mounts[0][3].split(",")
    place.umount()


@pytest.mark.parametrize(("option", "meant"), [("bogus", ""), ("allow_otter=3", "; did you mean allow_other?")])
def test_an_unknown_option_is_an_error_with_the_nearest_known_one(place: Place, option: str, meant: str) -> None:
    text = refused(run_here("mount", place.path, "-o", option), place.path)
    assert text == f"FUSE does not know the option {option}: correct -o{meant}"
    assert not place.mounts and place.region is None


def test_the_type_cannot_be_changed(place: Place) -> None:
    assert "subtype" in refused(run_here("mount", place.path, "-o", "subtype=sshfs"), place.path)


@pytest.mark.root
def test_root_may_use_allow_other(place: Place) -> None:
    place.mount("-o", "allow_other")
    assert "allow_other" in place.mounts[0][3].split(",")
    place.umount()


@pytest.mark.user
def test_allow_other_of_an_ordinary_user_needs_a_line_in_fuse_conf(place: Place) -> None:
    lines = Path("/etc/fuse.conf").read_text().splitlines()
    done = run_here("mount", place.path, "-o", "allow_other")
    if "user_allow_other" in lines:
        assert done.returncode == 0
        place.daemons.add(place.daemon)
        place.umount()
    else:
        assert "user_allow_other in /etc/fuse.conf" in refused(done, place.path)


# ---- wrong mount points and resources


def test_a_missing_mount_point_is_an_error(place: Place) -> None:
    missing = place.directory / "missing"
    assert refused(run_here("mount", missing), missing) == "there is no such directory: make it with mkdir"


def test_a_mount_point_must_be_a_directory(place: Place) -> None:
    file = place.directory / "file"
    file.touch()
    assert refused(run_here("mount", file), file).startswith("not a directory")


def test_a_second_mount_at_a_mount_point_is_refused(place: Place) -> None:
    place.mount()
    place.root.charge(3)
    assert refused(run_here("mount", place.path), place.path).startswith("already an fsmount mount")
    assert place.root.usage == 3
    place.umount()


@pytest.mark.user
def test_an_ordinary_user_must_own_the_mount_point() -> None:
    assert "a directory that this user owns" in refused(run_here("mount", "/mnt"), "/mnt")


@pytest.mark.user
def test_without_fusermount3_the_error_names_the_package_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(place.directory))
    assert "install the package fuse3" in refused(run_here("mount", place.path), place.path)


@pytest.mark.parametrize("word", ["a.b", "a=b", "mem,tokens:count", "-a", "", ":count", "a b", "a\u200b", "é" * 32])
def test_a_resource_name_that_no_command_could_use_is_refused(place: Place, word: str) -> None:
    done = run_here("mount", place.path, "--resource", word)
    assert (done.returncode, done.stdout) == (2, "")
    assert "a resource's name has 1 to 63 bytes" in done.stderr
    assert place.region is None


def test_every_command_can_use_an_accepted_resource_name(place: Place) -> None:
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
    assert run_here("save", place.path, saved).returncode == 0
    place.umount()
    place.mount("--config", saved)
    for name in names:
        assert run_here("get", place.path, f"{name}.limit").stdout == "5\n"


def test_a_region_in_a_missing_directory_is_an_error(place: Place) -> None:
    text = refused(run_here("mount", place.path, "--region", place.directory / "missing" / "region"), place.path)
    assert text.startswith("there is no directory for the region")


# ---- the region


def test_the_next_mount_finds_a_region_at_another_path(place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region)
    assert place.facts()["region"] == str(region)
    assert region.stat().st_mode & 0o777 == 0o600
    place.root.charge(7)
    place.signal(signal.SIGKILL)
    place.mount()
    assert place.facts()["region"] == str(region)
    assert place.root.usage == 7
    place.umount()
    assert not region.exists() and place.region is None


def test_only_one_daemon_serves_a_region(place: Place, other_place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region)
    text = refused(run_here("mount", other_place.path, "--region", region), other_place.path)
    assert text.startswith(f"the region {region} is served at {place.path} by ")
    assert f"(pid {place.daemon})" in text
    place.umount()


def test_another_mount_point_can_serve_a_kept_region(place: Place, other_place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region)
    place.root.charge(7)
    place.umount("--keep")
    other_place.mount("--region", region)
    assert other_place.root.usage == 7
    other_place.umount()


def test_options_must_match_an_existing_region(place: Place) -> None:
    place.mount("--groups", "64", "--holders", "32", "--cells", "128")
    place.root.charge(7)
    place.umount("--keep")
    for options, error in (
        (["--resource", "memory:count"], "the existing counters are memory:bytes, not those of --resource"),
        (["--resource", "memory", "--resource", "disk"], "the existing counters are memory:bytes"),
        (["--groups", "17"], "the existing region has room for 64 groups, not 17"),
        (["--holders", "17"], "the existing region has room for 32 holders, not 17"),
        (["--cells", "17"], "the existing region has room for 128 cells, not 17"),
    ):
        assert refused(run_here("mount", place.path, *options), place.path).startswith(error)
    place.mount("--resource", "memory:bytes", "--groups", "64", "--batch", "0")
    assert (place.root.usage, place.root.stat()["batch"]) == (7, 0)
    place.umount()


def test_a_file_that_is_no_region_is_refused_and_stays(place: Place) -> None:
    file = place.directory / "precious"
    file.write_bytes(b"precious" * 1000)
    file.chmod(0o600)
    assert refused(run_here("mount", place.path, "--region", file), place.path).startswith(
        f"the region {file} cannot be used"
    )
    assert file.read_bytes() == b"precious" * 1000


def test_a_region_of_another_version_or_architecture_is_refused_and_stays(place: Place) -> None:
    """A region begins with 8 bytes of magic, the version, the architecture and the size."""
    region = place.directory / "region"
    place.mount("--region", region, "--groups", "64", "--cells", "256")
    place.root.charge(7)
    place.umount("--keep")
    there = region.read_bytes()
    for offset, error in (
        (8, "layout version"),
        (12, "made on another architecture"),
        (16, "bytes long"),
        (0, "not a region of fsmount"),
    ):
        changed = there[:offset] + bytes([there[offset] ^ 0xFF]) + there[offset + 1 :]
        region.write_bytes(changed)
        text = refused(run_here("mount", place.path), place.path)
        assert text.startswith(f"the region {region} cannot be used: ") and error in text
        assert text.endswith("; mount it with the version that made it, or remove it to start with new counters")
        assert region.read_bytes() == changed and not place.mounts
    region.write_bytes(there)
    place.mount()
    assert place.root.usage == 7
    place.umount()


def test_a_truncated_region_is_refused_and_stays(place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region, "--groups", "64", "--cells", "256")
    place.root.charge(7)
    place.umount("--keep")
    there = region.read_bytes()
    for length in (0, 100, len(there) - 1):
        region.write_bytes(there[:length])
        text = refused(run_here("mount", place.path), place.path)
        assert re.search(r"too short to be a region|bytes long, its geometry needs", text), text
        assert region.read_bytes() == there[:length] and not place.mounts
    region.write_bytes(there)
    place.mount()
    assert place.root.usage == 7
    place.umount()


def test_removing_the_file_of_a_served_region_loses_no_charge(place: Place) -> None:
    """The memory lasts as long as a process maps it; later processes charge through files."""
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


def test_a_file_in_place_of_a_served_region_stays(place: Place) -> None:
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
        for offset in range(4096, size, 4096):  # the header stays, which marks the file as a region
            file.seek(offset)
            file.write(b"\xff\x00\x5a\xff" * 256)
    for options in ([], ["--batch", "0"]):
        text = refused(run_here("mount", place.path, *options), place.path)
        assert text.startswith(f"the region {region} is damaged: ") and text.endswith(
            "; remove it to start with new counters"
        )
    assert region.stat().st_size == size and not place.mounts
    region.unlink()
    place.mount()
    place.umount()


def test_a_link_as_region_and_a_region_open_to_others_are_refused(place: Place) -> None:
    link = place.directory / "link"
    link.symlink_to(place.directory / "elsewhere")
    assert "cannot be opened" in refused(run_here("mount", place.path, "--region", link), place.path)
    region = place.directory / "region"
    place.mount("--region", region)
    place.umount("--keep")
    region.chmod(0o666)
    assert "other users may write to the region" in refused(run_here("mount", place.path), place.path)
    region.chmod(0o600)
    place.mount()
    place.umount()


def test_a_region_that_others_could_replace_is_refused(place: Place) -> None:
    shared = place.directory / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    text = refused(run_here("mount", place.path, "--region", shared / "region"), place.path)
    assert text.startswith("other users could replace the region")


@pytest.mark.user
def test_a_file_of_another_user_as_region_is_refused(place: Place) -> None:
    text = refused(run_here("mount", place.path, "--region", "/etc/passwd"), place.path)
    assert text == "the region /etc/passwd cannot be opened (Permission denied): name another with --region"


@pytest.mark.root
def test_root_cannot_mount_over_a_mount_of_another_user_live_or_stale(place: Place) -> None:
    """Root can unmount it; the region remains the property of the other user."""
    user, group = pwd.getpwnam("nobody").pw_uid, place.root / "group"  # fusermount3 refuses a user without a name
    os.chown(place.path, user, user)

    def as_owner(*arguments: str) -> str:
        return str(as_user(user, lambda: (done := run(*arguments, place.path)).stderr or str(done.returncode)))

    assert as_owner("mount") == "0"
    as_user(user, lambda: os.mkdir(group))
    daemon = int(as_user(user, lambda: place.daemon))
    place.daemons.add(daemon)
    wanted = f"already an fsmount mount, of user {user}: choose another directory or unmount it first"
    assert refused(run_here("mount", place.path), place.path) == wanted
    os.kill(daemon, signal.SIGKILL)
    eventually(lambda: has_ended(daemon))
    assert refused(run_here("mount", place.path), place.path) == wanted
    region = region_path.find(str(place.path), user)
    place.umount("--keep")
    assert not place.mounts and region is not None and region_path.find(str(place.path), user) == region
    os.chown(place.path, 0, 0)
    place.mount()
    assert "belongs to user" not in str(place.region) and "already" in as_owner("mount")
    place.umount()
    os.chown(place.path, user, user)
    assert as_owner("mount") == "0"
    assert as_user(user, lambda: os.path.isdir(group))
    assert as_owner("umount", "--quiet") == "0"
    assert region_path.find(str(place.path), user) is None


@pytest.mark.root
def test_root_cannot_serve_a_region_of_another_user(place: Place) -> None:
    region = place.directory / "region"
    place.mount("--region", region)
    place.umount("--keep")
    os.chown(region, 12345, 12345)
    assert "belongs to user 12345" in refused(run_here("mount", place.path), place.path)
    os.chown(region, 0, 0)
    place.mount()
    place.umount()


def test_a_mount_removes_an_unfinished_region_of_a_killed_mount(place: Place) -> None:
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


def test_a_mount_finishes_a_region_of_a_mount_that_was_killed_at_the_last_step(place: Place) -> None:
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
    run_here("mount", place.path, "-o", "bogus")
    assert place.region is None


@pytest.mark.root
def test_a_lease_without_room_in_shared_memory_fails_and_charges_nothing(place: Place) -> None:
    """With 100 holders the leases begin in the middle of a page."""
    with namespace("mount -t tmpfs -o size=2m,mode=1777 none /dev/shm") as full:
        fsmount = (sys.executable, "-m", "fsmount")
        full.does(*fsmount, "mount", place.path, "--holders", "100")
        full.run("dd", "if=/dev/zero", "of=/dev/shm/filler", "bs=4k")
        done = full.run("bash", "-c", 'echo 5 3<>"$0" >&3', place.path / "memory.lease")
        error = done.stderr
        assert full.does("cat", place.path / "memory.usage_in_bytes") == "0\n"
        full.does(*fsmount, "umount", place.path)
    assert "No space left on device" in error


@pytest.mark.root
def test_a_region_is_not_made_without_room_for_the_link_to_it(place: Place) -> None:
    """Without the link, the next mount could not find the region."""
    region = place.directory / "region"
    with namespace("mount -t tmpfs -o nr_inodes=2,mode=1777 none /dev/shm") as full:
        done = full.run(sys.executable, "-m", "fsmount", "mount", place.path, "--region", region)
    error = refused(done, place.path)
    assert error.startswith(f"the link to the region {region} cannot be made: No space left on device")
    assert not region.exists()


def test_a_daemon_ends_if_its_command_is_killed_before_the_mount_is_reported(place: Place) -> None:
    kill_mount_command(place)
    assert not place.mounts and place.region is None


def test_existing_counters_survive_a_daemon_whose_command_is_killed(place: Place) -> None:
    place.mount()
    place.root.charge(5)
    place.umount("--keep")
    kill_mount_command(place, "--keep")
    place.mount()
    assert place.root.usage == 5
    place.umount()


def kill_mount_command(place: Place, *too_late: str) -> None:
    """Kills `fsmount mount` between the start of its daemon and the mount.

    After a kill that comes too late, it unmounts with these options and tries again.
    """
    command = [sys.executable, "-m", "fsmount", "mount", str(place.path)]
    while True:
        with subprocess.Popen(command) as mounting:
            eventually(lambda mounting=mounting: mounting.poll() is not None or has_daemon(place), what="the fork")  # type: ignore[misc]
            mounting.kill()
        is_late = bool(place.mounts)
        if is_late:
            run_here("umount", place.path, *too_late)
        # One look may miss a process that is replaced by its child during the look.
        eventually(lambda: not any(place.processes for _ in range(3)), what="the end of the daemon")
        if not is_late:
            return


def has_daemon(place: Place) -> bool:
    """Whether a process there has another session than the tests, as only the daemon has."""
    with contextlib.suppress(ProcessLookupError):
        return any(os.getsid(pid) != os.getsid(0) for pid in place.processes)
    return False


def test_the_installed_command_mounts_and_unmounts(place: Place) -> None:
    command = shutil.which("fsmount", path=os.path.dirname(sys.executable))
    if command is None:
        pytest.skip("the package is not installed here")
    # with this interpreter, since the first line of the script may name a path closed to this user
    subprocess.run([sys.executable, command, "mount", str(place.path)], check=True, timeout=60)
    place.daemons.add(place.daemon)
    pid = place.daemon
    subprocess.run([sys.executable, command, "umount", str(place.path)], check=True, timeout=60)
    assert has_ended(pid)
