"""scripts/setup and scripts/test, run as a developer runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounts import eventually

CHECKOUT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    Path(sys.prefix) != CHECKOUT / ".venv", reason="these are about the .venv that scripts/setup makes"
)

LEAVES_A_PROCESS_AND_A_REGION = """
import subprocess

def test_passes():
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    open({region!r}, "x").close()
"""


def script(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_second_setup_changes_nothing() -> None:
    before = {path: path.stat().st_mtime_ns for path in (CHECKOUT / "fsmount").rglob("*.so")}
    done = script(CHECKOUT / "scripts/setup")
    assert (done.returncode, done.stdout, done.stderr) == (0, "setup: already set up\n", "")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_that_leaves_something_behind_fails_and_names_it(tmp_path: Path) -> None:
    region = Path(f"/dev/shm/fsmount-left-behind-{os.getpid()}")
    test = tmp_path / "test_leaving.py"
    test.write_text(LEAVES_A_PROCESS_AND_A_REGION.format(region=str(region)))
    try:
        done = script(CHECKOUT / "scripts/test", "-p", "no:cacheprovider", test)
    finally:
        region.unlink(missing_ok=True)  # root's runs have a /dev/shm of their own
    assert done.returncode == 1
    assert "1 passed" in done.stdout
    (process,) = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("process ")]
    assert process[1:] == ["sleep", "1000"]
    assert f"region {region}\n" in done.stdout
    eventually(lambda: not Path("/proc", process[0]).exists(), what="what was left behind is ended")
