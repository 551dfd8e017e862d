"""The sdist and the wheel have the right files, and an empty venv needs nothing but a wheel."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.project.conftest import CHECKOUT, empty_venv, pip, run

ENGINE = CHECKOUT / "fsmount/engine"

# Building compiles.
pytestmark = pytest.mark.timeout(300)


def test_the_sdist_holds_all_sources_and_nothing_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        file.relative_to(CHECKOUT).as_posix()
        for file in ENGINE.rglob("*")
        if file.suffix in (".c", ".h", ".pyx", ".pyi")
    }
    assert names >= sources | {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py"}
    assert names >= {"fsmount/py.typed", "scripts/setup", "tests/project/test_packages.py", "man/fsmount.1"}
    assert not [name for name in names if name.startswith("client")]
    assert not [name for name in names if name.endswith((".so", ".o", ".a", ".pyc")) or name.startswith("build")]


def test_the_wheel_holds_the_typed_package_and_no_c_and_no_pictures(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"fsmount/py.typed", "fsmount/engine/_binding.pyi"} <= set(names)
    pages = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "fsmount/docs").glob("*.md")}
    assert pages - set(names) == {"fsmount/docs/bench.md"}
    assert len([name for name in names if name.startswith("fsmount/engine/_binding.") and name.endswith(".so")]) == 1
    assert not [name for name in names if not name.startswith(("fsmount/", "fsmount-"))]
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx", ".svg"))]
    modules = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "fsmount").rglob("*.py")}
    assert modules <= set(names)


def test_the_wheel_in_an_empty_venv_gives_the_command_and_the_counters(wheel: Path, tmp_path: Path) -> None:
    venv = empty_venv(tmp_path / "venv")
    programs = venv / "bin"
    pip(venv, "install", "-qq", wheel, cwd=tmp_path)
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
