"""scripts/setup and scripts/test, run as a developer runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.mounts import eventually
from tests.project.conftest import CHECKOUT, copy_of_the_sources

pytestmark = pytest.mark.skipif(
    Path(sys.prefix) != CHECKOUT / ".venv", reason="these are about the .venv that scripts/setup makes"
)

LEAVES_A_PROCESS_AND_A_REGION = """
import subprocess

def test_passes():
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    open({region!r}, "x").close()
"""


# In a mount namespace of its own, where /dev/fuse is a node that only root may open.
WITH_CLOSED_FUSE = """
mount -t tmpfs tmpfs /dev/shm
mknod -m 600 /dev/shm/fuse c 10 229
mount --bind /dev/shm/fuse /dev/fuse
"""


def script(
    *command: str | Path, seconds: int = 60, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd="/",
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def with_closed_fuse(commands: str) -> list[str]:
    """The lines that shell commands print where ordinary users may not mount."""
    shell = f"{WITH_CLOSED_FUSE}cd '{CHECKOUT}'\n{commands}"
    done = script("unshare", "--mount", "--propagation", "private", "sh", "-euc", shell)
    assert done.returncode == 0, done
    return done.stdout.splitlines()


def test_a_second_setup_changes_nothing() -> None:
    before = {path: path.stat().st_mtime_ns for path in (CHECKOUT / "fsmount").rglob("*.so")}
    done = script(CHECKOUT / "scripts/setup")
    assert (done.returncode, done.stdout, done.stderr) == (0, "setup: already set up\n", "")
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.timeout(600)
def test_setup_in_a_fresh_clone_gives_the_command_and_its_manual_and_no_tools(
    tmp_path: Path, compile_once: dict[str, str]
) -> None:
    clone = copy_of_the_sources(tmp_path)
    done = script(clone / "scripts/setup", seconds=500, env=compile_once)
    assert done.returncode == 0, done
    manual = "fsmount --version; man fsmount | head -n 1; man 5 fsmount | head -n 1; python -m pip list --format=freeze"
    activated = script("bash", "-euc", f". '{clone}/.venv/bin/activate'\n{manual}")
    assert activated.returncode == 0, activated
    version, page, files, *installed = activated.stdout.splitlines()
    assert version.startswith("fsmount")
    assert (page.split()[0], files.split()[0]) == ("FSMOUNT(1)", "FSMOUNT(5)")
    assert not {"pytest", "ruff", "mypy", "matplotlib"} & {line.partition("==")[0] for line in installed}


@pytest.mark.parametrize("arguments", [["--for"], ["--for", "tests"], ["--open"], ["x"]])
def test_a_wrong_argument_of_setup_is_refused_with_the_right_ones(arguments: list[str]) -> None:
    done = script(CHECKOUT / "scripts/setup", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "test" in done.stderr
    assert "bench" in done.stderr


@pytest.mark.root
def test_setup_opens_dev_fuse_only_if_asked() -> None:
    mode = "stat -c %a /dev/fuse"
    note, done, closed, said, again, opened = with_closed_fuse(
        f"scripts/setup; {mode}; scripts/setup --open-fuse; {mode}"
    )
    assert note.startswith("setup: note: /dev/fuse is closed to ordinary users")
    assert "scripts/setup --open-fuse" in note
    assert (closed, opened) == ("600", "666")
    assert said.startswith("setup: opening /dev/fuse")
    assert done == again == "setup: already set up"


@pytest.mark.root
def test_a_run_of_the_tests_opens_dev_fuse_for_itself_alone(tmp_path: Path) -> None:
    test = tmp_path / "test_mode.py"
    test.write_text("import os\n\ndef test_mode():\n    assert os.stat('/dev/fuse').st_mode & 0o777 == 0o666\n")
    lines = with_closed_fuse(f"scripts/test -p no:cacheprovider '{test}'; stat -c %a /dev/fuse")
    assert any(line.startswith("test: /dev/fuse is closed to ordinary users; this run has one") for line in lines)
    assert lines[-1] == "600"


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
    eventually(lambda: not Path("/proc", process[0]).exists(), what="the process that was left behind is ended")
