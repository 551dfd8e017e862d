"""The sdist and the wheel: what is in them, and that a wheel is all an empty venv needs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
ENGINE = CHECKOUT / "fsmount/engine"

# Building asks the package index for what builds, and compiles.
pytestmark = pytest.mark.timeout(300)


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that succeeds, run as in a shell that knows nothing of this checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel that was built from it."""
    directory = tmp_path_factory.mktemp("packages")
    run(sys.executable, "-m", "build", "--outdir", directory, CHECKOUT, cwd=directory)
    return directory


def the_one(directory: Path, pattern: str) -> Path:
    (path,) = directory.glob(pattern)
    return path


def test_the_sdist_holds_all_sources_and_nothing_built(packages: Path) -> None:
    with tarfile.open(the_one(packages, "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    sources = {
        file.relative_to(CHECKOUT).as_posix()
        for file in ENGINE.rglob("*")
        if file.suffix in (".c", ".h", ".pyx", ".pyi")
    }
    assert names >= sources | {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py"}
    assert names >= {"fsmount/py.typed", "scripts/setup", "tests/project/test_packages.py", "man/fsmount.1"}
    assert not [name for name in names if name.endswith((".so", ".o", ".a", ".pyc")) or name.startswith("build")]


def test_the_wheel_holds_the_typed_package_and_no_c_and_no_pictures(packages: Path) -> None:
    with zipfile.ZipFile(the_one(packages, "*.whl")) as wheel:
        names = wheel.namelist()
    assert {"fsmount/py.typed", "fsmount/engine/_binding.pyi"} <= set(names)
    pages = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "fsmount/docs").glob("*.md")}
    assert pages - set(names) == {"fsmount/docs/bench.md"}
    assert len([name for name in names if name.startswith("fsmount/engine/_binding.") and name.endswith(".so")]) == 1
    assert not [name for name in names if not name.startswith(("fsmount/", "fsmount-"))]
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx", ".svg"))]
    modules = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "fsmount").rglob("*.py")}
    assert modules <= set(names)


def test_the_wheel_in_an_empty_venv_gives_the_command_and_the_counters(packages: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv/bin"
    run(programs / "python", "-m", "pip", "install", "-qq", the_one(packages, "*.whl"), cwd=tmp_path)
    assert "mount" in run(programs / "fsmount", "--help", cwd=tmp_path)
    activate = f". '{programs}/activate'"
    assert run("bash", "-euc", f"{activate}; man fsmount", cwd=tmp_path).startswith("FSMOUNT(1)")
    assert run("bash", "-euc", f"{activate}; man 5 fsmount", cwd=tmp_path).startswith("FSMOUNT(5)")
    program = """
import fsmount
with fsmount.Tree.create() as tree, tree.root.attach() as group:
    group["memory"].charge(4096)
    print(group["memory"].usage)
"""
    assert run(programs / "python", "-c", program, cwd=tmp_path) == "4096\n"
