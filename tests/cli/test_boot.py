"""fsmount on a machine that systemd boots: a Debian in namespaces, installed by the commands of the documentation."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts import GroupFiles, eventually

CHECKOUT = Path(__file__).parents[2]
OPERATIONS = (CHECKOUT / "fsmount/docs/service.md").read_text()
SERVICE = "/run/fsmount"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(1800),  # a whole Debian is downloaded
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="scripts/soak installs mmdebstrap"),
]

# A script outside makes and removes the cgroup of the machine; its systemd sees only the cgroups below.
_OUTSIDE = """
set -e
mount -t cgroup2 none "$1/mnt"
group=$1/mnt/fsmount-boot-$$
mkdir "$group"
(echo 0 >"$group/cgroup.procs"
 exec unshare --fork --kill-child --pid --mount --uts --ipc --net --cgroup sh -c "$2" sh "$1") || status=$?
find "$group" -depth -type d -exec rmdir {} +
exit "${status-0}"
"""
# The first line reads the pid from /proc of the machine outside. The kernel's files are shared with it, so they are
# mounted read-only. Mounts propagate, as systemd makes them outside of containers.
_INSIDE = """
set -e
read -r pid rest </proc/self/stat
mount --bind "$1" "$1"
cd "$1"
mount -t proc none proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro none sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/fuse dev
ln -s pts/ptmx dev/ptmx
pivot_root . mnt
umount --lazy /mnt
mount --make-rshared /
echo "$pid"
exec env -i container=fsmount-test NOTIFY_SOCKET=/booted /lib/systemd/systemd
"""


class Machine:
    """A machine in namespaces that boots and shuts down; its disk stays."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.boot()

    def boot(self) -> None:
        """Boots, and returns when systemd reports that all units of the boot have started."""
        (self.disk / "booted").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as booted:
            booted.bind(str(self.disk / "booted"))
            booted.settimeout(300)
            command = ["unshare", "--mount", "sh", "-c", _OUTSIDE, "sh", str(self.disk), _INSIDE]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            assert self._process.stdout is not None
            self._init = int(self._process.stdout.readline())
            while "READY=1" not in booted.recv(65536).decode().splitlines():
                pass

    def shut_down(self) -> None:
        self.does("systemctl poweroff")
        self._process.communicate(timeout=100)

    def end(self) -> None:
        if self._process.poll() is None:
            os.kill(self._init, 9)
            self._process.communicate()

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Runs the script in a shell of root on the machine."""
        command = ["nsenter", "--all", f"--target={self._init}", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            [*command, path, "sh", "-ec", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def does(self, script: str) -> str:
        """The output of the script, which must succeed."""
        done = self.run(script)
        assert done.returncode == 0, f"{script}: {done}\n{self.run('journalctl --lines=200').stdout}"
        return done.stdout.strip()

    def is_mounted(self, directory: str) -> bool:
        return self.run(f"mountpoint -q {directory}").returncode == 0

    def service(self, name: str, unit: str = "fsmount") -> str:
        """A property of the service."""
        return self.does(f"systemctl show --value --property={name} {unit}")

    def metrics(self) -> str:
        """The answer of the exporter."""
        code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9744/metrics').read().decode())"
        return self.does(f'/opt/fsmount/bin/python -c "{code}"')

    @contextlib.contextmanager
    def override(self, option: str) -> Iterator[None]:
        """Overrides one option of the service for the block, from its next start."""
        directory = "/run/systemd/system/fsmount.service.d"
        self.does(f"mkdir -p {directory}; printf '[Service]\\n{option}\\n' >{directory}/override.conf")
        self.does("systemctl daemon-reload")
        try:
            yield
        finally:
            self.does(f"rm {directory}/override.conf; systemctl daemon-reload")

    def group(self, path: str) -> GroupFiles:
        return GroupFiles(Path(f"/proc/{self._init}/root{path}"))


def debian(disk: Path) -> None:
    """Installs the Debian release of this machine into the directory, from the mirror of this machine."""
    release = dict(re.findall(r"(?m)^(\w+)=\"?(.*?)\"?$", Path("/etc/os-release").read_text()))
    index = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    of_release = f"Codename: {release['VERSION_CODENAME']}"
    mirror, *_ = subprocess.check_output([*index, of_release, "Component: main"], text=True).splitlines()
    (needed,) = re.findall(r"(?m)^ +apt install (.*)", OPERATIONS)
    packages = ",".join(["systemd", "systemd-sysv", "dbus", *needed.split()])
    make = ["unshare", "--mount", "mmdebstrap", "--variant=minbase", f"--include={packages}"]
    make += [release["VERSION_CODENAME"], str(disk), mirror]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{make}: {done.stderr}"


def sources(disk: Path) -> None:
    """Copies the checkout and the wheels of its dependencies: the machine has no network."""
    unwanted = shutil.ignore_patterns(".*", "build", "*.so", "*.o", "*.egg-info", "__pycache__")
    shutil.copytree(CHECKOUT, disk / "root/fsmount", ignore=unwanted)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wheel = [sys.executable, "-m", "pip", "wheel", "-qq", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*wheel, "--wheel-dir", disk / "root/wheels", *needed], check=True)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which the service is installed and runs."""
    disk = tmp_path_factory.mktemp("machine") / "disk"
    debian(disk)
    sources(disk)
    made = Machine(disk)
    try:
        install = "\n".join(re.findall(r"(?m)^    (.*)", OPERATIONS.partition("## Install")[2].partition("\n## ")[0]))
        made.does(
            f"mkdir -p /var/log/journal; cd /root/fsmount; export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels\n{install}"
        )
        yield made
    finally:
        made.end()
        shutil.rmtree(disk)


def test_systemd_starts_the_service_at_boot_and_a_dependent_unit_finds_the_files(machine: Machine) -> None:
    (machine.disk / "etc/systemd/system/reader.service").write_text("""
[Unit]
Requires=fsmount.service
After=fsmount.service
[Service]
Type=oneshot
ExecStart=cat /run/fsmount/memory.usage_in_bytes
RemainAfterExit=yes
[Install]
WantedBy=multi-user.target
""")
    machine.does("systemctl enable reader")
    machine.shut_down()
    machine.boot()
    assert machine.does("systemctl is-active fsmount reader") == "active\nactive"
    pages = re.findall(r"man:(\w+)\((\d)\)", machine.service("Documentation"))
    assert pages == [("fsmount", "1"), ("fsmount", "5")]
    for name, section in pages:
        machine.does(f"test -s /usr/local/share/man/man{section}/{name}.{section}")
    assert machine.does("journalctl --unit=reader --output=cat").splitlines()[1] == "0"
    assert machine.does("systemctl is-system-running") == "running"


def test_only_members_of_the_service_group_can_make_groups(machine: Machine) -> None:
    assert machine.does(f"stat -c '%a %U:%G' {SERVICE}") == "1775 root:fsmount"
    machine.does(f"setpriv --reuid=nobody --regid=fsmount --clear-groups mkdir {SERVICE}/group")
    other = machine.run(f"setpriv --reuid=nobody --regid=nogroup --clear-groups mkdir {SERVICE}/other")
    assert "Permission denied" in other.stderr
    machine.does(f"rmdir {SERVICE}/group")


def test_systemd_restarts_a_killed_daemon_which_recovers_every_charge(machine: Machine) -> None:
    before, restarts = machine.service("MainPID"), int(machine.service("NRestarts"))
    machine.group(SERVICE).charge(4096)
    machine.does("systemctl kill --signal=KILL fsmount")
    eventually(lambda: int(machine.service("NRestarts")) == restarts + 1, within=30)
    eventually(lambda: machine.service("ActiveState") == "active", within=30)
    assert machine.service("MainPID") != before
    assert machine.group(SERVICE).usage == 4096
    machine.group(SERVICE).uncharge(4096)


def test_the_watchdog_of_systemd_ends_and_restarts_a_stopped_daemon(machine: Machine) -> None:
    restarts = int(machine.service("NRestarts"))
    machine.group(SERVICE).charge(4096)
    machine.does("systemctl kill --signal=STOP fsmount")
    eventually(lambda: int(machine.service("NRestarts")) == restarts + 1, within=90)
    eventually(lambda: machine.service("ActiveState") == "active", within=30)
    journal = machine.does("journalctl --unit=fsmount --output=cat")
    assert "Watchdog timeout (limit 30s)!" in journal and "Fatal Python error: Aborted" in journal
    assert machine.group(SERVICE).usage == 4096
    machine.group(SERVICE).uncharge(4096)


def test_stopping_the_service_unmounts_and_the_next_start_has_the_counters(machine: Machine) -> None:
    machine.group(SERVICE).charge(4096)
    machine.does("systemctl stop fsmount")
    assert machine.service("Result") == "success" and not machine.is_mounted(SERVICE)
    machine.does("systemctl start fsmount")
    assert machine.group(SERVICE).usage == 4096
    machine.group(SERVICE).uncharge(4096)


def test_the_service_unmounts_after_a_killed_daemon_that_systemd_does_not_restart(machine: Machine) -> None:
    with machine.override("Restart=no"):
        machine.does("systemctl kill --signal=KILL fsmount")
        eventually(lambda: machine.service("ActiveState") == "failed", within=30)
        assert not machine.is_mounted(SERVICE) and machine.does(f"ls {SERVICE}") == ""
    machine.does("systemctl start fsmount")


def test_the_journal_names_a_change_of_the_configuration_with_the_command_to_apply_it(machine: Machine) -> None:
    def journal() -> str:
        return machine.does("journalctl --unit=fsmount --output=cat")

    machine.does("systemctl restart fsmount")
    assert "is for new counters" not in journal()
    machine.does('cp /etc/fsmount.toml /root; printf \'["/web"]\\nmemory.limit = "1G"\\n\' >>/etc/fsmount.toml')
    machine.does("systemctl restart fsmount")
    (command,) = re.findall(r"the group /web is not there: (.*)", journal())
    assert journal().count("/etc/fsmount.toml is for new counters") == 1
    machine.does(command)
    assert machine.group(f"{SERVICE}/web").limit == 1 << 30
    machine.does("systemctl restart fsmount")
    assert journal().count("/etc/fsmount.toml is for new counters") == 1
    machine.does(f"rmdir {SERVICE}/web; mv /root/fsmount.toml /etc")


def test_the_exporter_runs_unprivileged_and_survives_a_restart_of_the_service(machine: Machine) -> None:
    assert machine.service("ActiveState", "fsmount-exporter") == "active"
    pid = machine.service("MainPID", "fsmount-exporter")
    status = machine.does(f"cat /proc/{pid}/status")
    assert len(re.findall(r"(?m)^(?:CapBnd:\s+0+|NoNewPrivs:\s+1|Seccomp:\s+2|Uid:\s+[1-9].*)$", status)) == 4, status
    machine.group(SERVICE).charge(4096)
    assert 'fsmount_usage_bytes{group="/",resource="memory"} 4096' in machine.metrics()
    machine.does("systemctl restart fsmount")
    assert 'fsmount_usage_bytes{group="/",resource="memory"} 4096' in machine.metrics()
    assert machine.service("MainPID", "fsmount-exporter") == pid
    machine.group(SERVICE).uncharge(4096)


def test_the_documented_override_of_the_unit_takes_effect(machine: Machine) -> None:
    (lines,) = re.findall(r"(?m)^    \[Service\]\n((?:    \S.*\n)+)", OPERATIONS)
    with machine.override("\\n".join(map(str.strip, lines.splitlines()))):
        machine.does("systemctl restart fsmount")
        assert "/opt/fsmount/bin/fsmount" in machine.does(f"tr '\\0' ' ' </proc/{machine.service('MainPID')}/cmdline")
        assert machine.service("MemoryMax") == str(4 << 30)
    machine.does("systemctl restart fsmount")


def test_each_option_that_the_documentation_excludes_hides_the_files_or_fails(machine: Machine) -> None:
    options = re.findall(r"(?m)^\| `([A-Z]\w+=\S*)` \| (\w+)", OPERATIONS.partition("## Confinement")[2])
    assert len(options) > 10
    for option, result in options:
        machine.does("systemctl stop fsmount")
        with machine.override(option):
            starts = machine.run("systemctl start fsmount").returncode == 0
            assert (option, starts, machine.is_mounted(SERVICE)) == (option, result != "fails", False)
            machine.run("systemctl stop fsmount; systemctl reset-failed fsmount")
    machine.does("systemctl start fsmount")
    assert machine.is_mounted(SERVICE)


def test_a_line_of_fstab_mounts_at_boot_and_unmounts_at_shutdown(machine: Machine) -> None:
    (line,) = re.findall(r"(?m)^    (\S+ /\S+ fuse\.fsmount .*)$", OPERATIONS)
    directory = line.split()[1]
    machine.does(f"mkdir {directory}; echo {shlex.quote(line)} >>/etc/fstab")
    machine.shut_down()
    machine.boot()
    assert machine.is_mounted(directory) and machine.does(f"cat {directory}/tokens.usage") == "0"
    assert machine.does("systemctl is-system-running") == "running"
    machine.shut_down()
    machine.boot()
    unit = machine.does(f"systemd-escape --path --suffix=mount {directory}")
    words = [line.split()[0] for line in machine.does(f"journalctl --unit={unit} --output=cat").splitlines()]
    assert [word for word in words if word in ("Mounted", "Unmounted", "Failed")] == ["Mounted", "Unmounted", "Mounted"]
