"""fsmount as a service of systemd: its notifications, and its unit files under systemd's own programs."""

from __future__ import annotations

import configparser
import errno
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.namespace import Namespace, namespace
from tests.cli.place import Place
from tests.mounts import GroupFiles, eventually, fails_with

FILES = Path(__file__).parents[2] / "scripts/systemd"
UNIT = FILES / "fsmount.service"
UNITS = [UNIT, FILES / "fsmount-exporter.service"]
OPERATIONS = (Path(__file__).parents[2] / "fsmount/docs/service.md").read_text()
PROGRAMS = os.path.dirname(sys.executable)
INTERVAL = 0.8


class Manager:
    """Plays the part of systemd: starts a service and receives its notifications."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0"))
        self.socket.settimeout(60)

    def message(self) -> list[str]:
        return self.socket.recv(65536).decode().splitlines()

    def silent(self, seconds: float) -> bool:
        """Whether no notification arrives in that time."""
        return not select.select([self.socket], [], [], seconds)[0]

    def start(self, *command: str | Path, **environment: str) -> subprocess.Popen[str]:
        variables = {**os.environ, "NOTIFY_SOCKET": self.address, **environment}
        return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def serve(self, place: Place, *options: str, **environment: str) -> subprocess.Popen[str]:
        process = self.start(sys.executable, "-m", "fsmount", "mount", "-f", place.path, *options, **environment)
        place.daemons.add(process.pid)
        return process

    def receives_ready(self, mountpoint: Path) -> None:
        ready, status = self.message()
        assert (ready, status.startswith(f"STATUS=serving {mountpoint}, ")) == ("READY=1", True), status


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@fsmount-test-{os.getpid()}")
    with made.socket:
        yield made


@pytest.fixture
def only_manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    with made.socket:
        yield made


def ends_well(process: subprocess.Popen[str]) -> None:
    assert (process.communicate(timeout=60), process.returncode) == (("", ""), 0)


# ---- notifications


def test_the_daemon_reports_ready_with_the_files_and_stopping_at_sigterm(manager: Manager, place: Place) -> None:
    process = manager.serve(place)
    manager.receives_ready(place.path)
    assert place.root.usage == 0 and len(place.mounts) == 1
    process.terminate()
    assert manager.message() == ["STOPPING=1", "STATUS=unmounting"]
    ends_well(process)
    assert manager.silent(0)


def test_the_daemon_reports_stopping_at_an_unmount(only_manager: Manager, place: Place) -> None:
    process = only_manager.serve(place)
    only_manager.receives_ready(place.path)
    place.umount()
    assert only_manager.message()[0] == "STOPPING=1"
    ends_well(process)


def test_the_daemon_sends_watchdog_pings_until_it_is_stopped(only_manager: Manager, place: Place) -> None:
    process = only_manager.serve(place, "--watchdog", "0", WATCHDOG_USEC=str(int(INTERVAL * 1e6)))
    only_manager.receives_ready(place.path)
    in_time = 0
    for _ in range(50):  # a busy machine delays some pings, but not all
        in_time = 0 if only_manager.silent(INTERVAL) else in_time + 1
        assert only_manager.message() == ["WATCHDOG=1"]
        if in_time == 3:
            break
    assert in_time == 3
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    while not only_manager.silent(0):
        only_manager.message()
    assert only_manager.silent(1.5 * INTERVAL)
    process.send_signal(signal.SIGCONT)
    assert only_manager.message() == ["WATCHDOG=1"]
    process.terminate()
    ends_well(process)


def test_the_daemon_sends_no_pings_if_systemd_watches_another_process(only_manager: Manager, place: Place) -> None:
    process = only_manager.serve(place, WATCHDOG_USEC="1000", WATCHDOG_PID="1")
    only_manager.receives_ready(place.path)
    assert only_manager.silent(0.2)
    process.terminate()
    ends_well(process)


def test_a_failed_mount_never_reports_ready(only_manager: Manager, place: Place) -> None:
    process = only_manager.serve(place, "-o", "bogus")
    assert process.communicate(timeout=60)[1].startswith(f"fsmount: {place.path}: ") and process.returncode == 1
    assert only_manager.silent(0)


def test_a_background_daemon_sends_no_notifications(only_manager: Manager, place: Place) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTIFY_SOCKET", only_manager.address)
        place.mount()
    place.umount()
    assert only_manager.silent(0)


def test_a_daemon_without_its_service_manager_logs_that_and_serves(place: Place, tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    manager.socket.close()
    process = manager.serve(place)
    eventually((place.path / ".fsmount").exists)
    place.umount()
    _, log = process.communicate(timeout=60)
    assert log.splitlines() == [
        f"fsmount: {place.path}: the service manager does not receive {what}: Connection refused"
        for what in ("READY=1", "STOPPING=1")
    ]


# ---- umount --stale


def test_umount_stale_removes_only_a_stale_mount_and_keeps_the_counters(place: Place) -> None:
    place.umount("--stale")
    place.mount()
    place.root.charge(7)
    place.umount("--stale")
    assert place.root.usage == 7
    place.signal(signal.SIGKILL)
    place.umount("--stale")
    assert not place.mounts
    place.mount()
    assert place.root.usage == 7
    place.umount()


# ---- the unit and its files


needs_systemd = pytest.mark.skipif(
    not all(map(shutil.which, ("systemd-analyze", "systemd-sysusers", "systemd-tmpfiles"))),
    reason="systemd is not installed",
)


@pytest.mark.root
@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_analyze_accepts_the_unit(unit: Path) -> None:
    with namespace('mount --bind "$1" /usr/local/bin', PROGRAMS) as machine:
        assert machine.does("systemd-analyze", "--man=no", "verify", *UNITS) == ""
    commands = re.findall(r"(?m)^Exec\w+=-?(\S+)", unit.read_text())
    assert commands and set(commands) == {"/usr/local/bin/fsmount"}
    for option in ("MemoryMax", "OOMScoreAdjust", "Documentation"):
        assert re.search(rf"(?m)^{option}=.", unit.read_text()), option


def test_the_documented_command_for_packages_changes_the_paths(tmp_path: Path) -> None:
    for unit in UNITS:
        shutil.copy(unit, tmp_path)
    (command,) = re.findall(r"(?m)^    (sed .*)$", OPERATIONS)
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True)
    for unit in UNITS:
        assert set(re.findall(r"(?m)^Exec\w+=-?(\S+)", (tmp_path / unit.name).read_text())) == {"/usr/bin/fsmount"}


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_documentation_has_the_exposure_level_of_the_unit(unit: Path) -> None:
    analyze = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    output = subprocess.run(analyze, capture_output=True, text=True, check=True).stdout
    (exposure,) = re.findall(r"Overall exposure level for \S+: (\S+)", output)
    (documented,) = re.findall(rf"(?m)^\| `{re.escape(unit.name)}` \|.*\| (\S+) \|$", OPERATIONS)
    assert float(exposure) <= 3.0 and exposure == documented


INSTALL = """
mkdir "$1/etc"
cp /etc/passwd /etc/group "$1/etc"
systemd-sysusers --root="$1" "$2/sysusers.conf" 2>/dev/null
mount --bind "$1/etc/group" /etc/group
mount -t tmpfs none /run
mount -t tmpfs none /dev/shm
systemd-tmpfiles --create "$2/tmpfiles.conf"
mount --bind "$3" /usr/local/bin
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Namespace]:
    """A namespace with the files that the unit needs; the test plays the part of systemd."""
    with namespace(INSTALL, tmp_path, FILES, PROGRAMS) as made:
        yield made


def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.read(UNIT)
    return unit["Service"]


def command(name: str) -> list[str]:
    """The command line of an option of the unit, under the unit's restrictions."""
    capabilities = service()["CapabilityBoundingSet"].lower().split()
    bounds = "".join(f",+{name.removeprefix('cap_')}" for name in capabilities)
    line = service()[name].removeprefix("-").replace("/etc/fsmount.toml", f"{FILES}/fsmount.toml")
    return ["setpriv", "--no-new-privs", f"--bounding-set=-all{bounds}", *shlex.split(line)]


@pytest.mark.root
@needs_systemd
def test_the_counters_of_the_service_outlive_its_death_and_its_stop(only_manager: Manager, machine: Namespace) -> None:
    def start() -> subprocess.Popen[str]:
        process = only_manager.start(*machine.inside(*command("ExecStart")))
        only_manager.receives_ready(Path("/run/fsmount"))
        return process

    def stop_post() -> None:
        machine.does(*command("ExecStopPost"))
        assert machine.run("mountpoint", "-q", "/run/fsmount").returncode == 32

    process = start()
    try:
        root = GroupFiles(machine.path("/run/fsmount"))
        group = root.child("group")
        status = root.path.stat()
        assert status.st_mode & 0o7777 == 0o1775
        another_user = ("setpriv", "--reuid=65534", "--clear-groups")
        machine.does(*another_user, f"--regid={status.st_gid}", "mkdir", "/run/fsmount/group")
        assert "Permission denied" in machine.run(*another_user, "--regid=65534", "mkdir", "/run/fsmount/other").stderr
        group.charge(7)

        process.send_signal(signal.Signals[service().get("KillSignal", "SIGTERM")])  # as after a failure of ExecStop
        process.communicate()
        with fails_with(errno.ENOTCONN):
            group.read("usage")
        stop_post()
        process = start()
        assert group.usage == 7

        machine.does(*command("ExecStop"))
        assert only_manager.message()[0] == "STOPPING=1"
        ends_well(process)
        stop_post()
        process = start()
        assert group.usage == 7
    finally:
        process.terminate()
        process.communicate(timeout=60)
