"""import fsmount: everything public is there, and nothing is loaded before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import fsmount


def imported_by(code: str) -> set[str]:
    """The modules of fsmount that a fresh interpreter has after this code."""
    code += "\nimport sys\nprint(*(name for name in sys.modules if name.startswith('fsmount.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_public_name_is_there() -> None:
    assert set(dir(fsmount)) == set(fsmount.__all__)
    assert all(getattr(fsmount, name) is not None for name in fsmount.__all__)
    assert not hasattr(fsmount, "Forest")


def test_the_tree_is_imported_when_it_is_asked_for() -> None:
    assert "fsmount.tree" not in imported_by("import fsmount; fsmount.attach")
    assert "fsmount.tree" in imported_by("import fsmount; fsmount.Tree")


def test_a_command_imports_itself_alone() -> None:
    modules = imported_by("from fsmount.cli import main\nmain(['charge', '--help'], standalone_mode=False)")
    assert "fsmount.cli.charge" in modules
    assert not modules & {"fsmount.cli.mount", "fsmount.tree", "fsmount.daemon.mount"}
