"""A second user attacks root's commands and mounts: only the attacker's own changes, and no process gets a signal.

oracle.py compares everything that does not belong to the attacker.  FSMOUNT_SOAK=1 runs the attack at its full length.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attack.scene import CHECKOUT

pytestmark = pytest.mark.root


def attack(part: str, seed: int, count: int, seconds: int) -> None:
    """Runs a part of the attack in its own namespaces; the test fails with its findings."""
    command = [sys.executable, "-m", "tests.attack", part, "--seed", str(seed), "--count", str(count)]
    process = subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # which ends the pid namespace, and with it everything
            process.wait()
    assert err == ""
    report = json.loads(out)
    print(json.dumps({name: value for name, value in report.items() if name != "findings"}))
    assert not report["findings"], "\n".join(report["findings"])
    assert process.returncode == 0


def test_no_operation_of_a_user_on_a_mount_of_root_harms_another_user(seed: int, soak: bool) -> None:
    attack("operations", seed, 1_000_000 if soak else 10_000, 3000 if soak else 250)


def test_no_race_with_links_renames_and_mounts_misleads_a_command_of_root(seed: int, soak: bool) -> None:
    attack("races", seed, 10_000 if soak else 30, 3500 if soak else 250)


@pytest.mark.timeout(7200)
def test_no_window_between_a_check_and_a_use_is_open(seed: int, soak: bool) -> None:
    """Each system call of each command is a window; a soak opens all of the thousands."""
    attack("windows", seed, 1_000_000 if soak else 40, 7000 if soak else 250)


# ---- the oracle


@pytest.mark.parametrize(
    ("act", "difference"),
    [
        pytest.param("os.kill(oracle.victims[0].pid, 10)", "got signal 10 from process", id="signal"),
        pytest.param("os.kill(oracle.victims[1].pid, 9)", "ended or was stopped: 9", id="kill"),
        pytest.param("os.kill(oracle.victims[1].pid, 19)", "ended or was stopped", id="stop"),
        pytest.param("os.kill(scene.daemons[0], 15)", "a daemon", id="end of a daemon"),
        pytest.param("(scene.canaries[0] / 'x.toml').write_text('y')", "x.toml' was", id="write"),
        pytest.param("os.utime(scene.canaries[1] / 'm', (0, 0))", "/m' was", id="times"),
        pytest.param("os.chmod(scene.canaries[1] / 'pipe', 0o666)", "pipe' was", id="mode"),
        pytest.param("(scene.canaries[0] / 'm' / 'new').mkdir()", "new' was None", id="directory"),
        pytest.param("scene.region.unlink()", ".region' was", id="region"),
        pytest.param('os.rmdir(scene.mount / "root\'s")', "groups of", id="group"),
        pytest.param("os.system('mount -t tmpfs tmpfs /mnt')", "mount ", id="mount"),
        pytest.param("os.system(f'umount \"{scene.mounts[1]}\"')", "is None", id="unmount"),
    ],
)
def test_the_oracle_finds_a_change(act: str, difference: str, tmp_path: Path) -> None:
    script = tmp_path / "look.py"
    script.write_text(
        "import os, time\n"
        "from tests.attack.oracle import Oracle\n"
        "from tests.attack.scene import Scene\n"
        "scene = Scene()\n"
        "oracle = Oracle(scene)\n"
        "assert oracle.differences() == []\n"
        f"{act}\n"
        "for _ in range(600):\n"
        f"    if any({difference!r} in line for line in oracle.differences()):\n"
        "        raise SystemExit\n"
        "    time.sleep(0.1)\n"
        "raise SystemExit('no difference is found')\n"
    )
    enter = "unshare --mount --pid --fork --kill-child --mount-proc --propagation private --".split()
    done = subprocess.run(
        [*enter, sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
