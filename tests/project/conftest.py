"""The packages that the tests of packaging share, each built once: the sdist, and from it the wheels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """The output of a command that succeeds, run as in a shell that knows nothing of this checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env={**environment, **(env or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def empty_venv(directory: Path) -> Path:
    """A new venv, without even pip."""
    run(sys.executable, "-m", "venv", "--without-pip", directory, cwd=directory.parent)
    return directory


def pip(venv: Path, *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Runs pip for a venv that has none."""
    return run(sys.executable, "-m", "pip", "--python", venv / "bin/python", *arguments, cwd=cwd, env=env)


def copy_of_the_sources(directory: Path) -> Path:
    """The files of a fresh clone."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=CHECKOUT)
    for name in listed.split("\0"):
        if name and os.path.lexists(CHECKOUT / name):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, directory / name, follow_symlinks=False)
    return directory


@pytest.fixture(scope="session")
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the second build of the same sources copies the objects of the first."""
    directory = tmp_path_factory.mktemp("compile-once")
    programs, objects = directory / "bin", directory / "objects"
    programs.mkdir()
    objects.mkdir()
    for name in {"cc", "gcc", f"{os.uname().machine}-linux-gnu-gcc"}:
        if shutil.which(name):
            (programs / name).symlink_to(Path(__file__).with_name("compile_once"))
    return {"PATH": f"{programs}:{os.environ['PATH']}", "COMPILED": str(objects)}


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist; the environment of the tests has the tools that build it."""
    directory = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", directory, CHECKOUT, cwd=directory)
    (path,) = directory.glob("*.tar.gz")
    return path


@pytest.fixture(scope="session")
def sources(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist."""
    directory = tmp_path_factory.mktemp("sources")
    run("tar", "--extract", "--file", sdist, cwd=directory)
    (path,) = directory.iterdir()
    return path


@pytest.fixture(scope="session")
def wheel(sources: Path, compile_once: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist."""
    directory = tmp_path_factory.mktemp("wheel")
    words = ["-m", "build", "--no-isolation", "--wheel", "--outdir"]
    run(sys.executable, *words, directory, sources, cwd=directory, env=compile_once)
    (path,) = directory.glob("*.whl")
    return path
