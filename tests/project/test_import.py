"""The modules that `import fsmount` and the fast commands import."""

from __future__ import annotations

import pytest

import fsmount
from tests.mounts import GroupFiles
from tests.shm.conftest import run_python

# Modules that only the mount and the command line need, and those that take longer to import than all of fsmount.
ELSEWHERE = {"trio", "pyfuse3", "click", "dataclasses", "inspect", "subprocess", "asyncio", "logging",
             "multiprocessing", "prometheus_client"}  # fmt: skip


def test_importing_fsmount_imports_no_unneeded_module() -> None:
    program = """if True:
        import sys
        before = set(sys.modules)
        import fsmount
        tree = fsmount.Tree.create()
        tree.root["memory"].charge(1)
        print(*sorted(set(sys.modules) - before))
    """
    assert not ELSEWHERE & set(run_python(program).split())


def test_the_daemon_starts_without_the_modules_for_metrics() -> None:
    program = "import sys, fsmount.cli, fsmount.daemon.mount; print(*sys.modules)"
    assert "prometheus_client" not in run_python(program).split()


# Modules that only other commands need, or that make a start noticeably slower.
OF_OTHER_COMMANDS = {"asyncio", "dataclasses", "difflib", "json", "logging", "prometheus_client", "prompt_toolkit",
                     "pwd", "pyfuse3", "shutil", "socket", "subprocess", "tempfile", "tomlkit", "trio",
                     "fsmount.attachment", "fsmount.cli.ui.columns", "fsmount.cli.ui.snapshot", "fsmount.config",
                     "fsmount.daemon", "fsmount.engine", "fsmount.filesystem", "fsmount.protocol.refusals",
                     "fsmount.protocol.status", "fsmount.shm"}  # fmt: skip


@pytest.mark.parametrize("name", ["--version", "charge", "get", "run"])
def test_a_fast_command_imports_only_its_own_modules(group: GroupFiles, name: str) -> None:
    words = {
        "--version": [],
        "charge": [group.path, "memory=1"],
        "get": [group.path, "memory.usage"],
        "run": ["-g", group.path, "-r", "memory=1", "--", "true"],
    }[name]
    program = f"""if True:
        import sys
        from fsmount.cli import main
        try:
            main([{name!r}, *{list(map(str, words))!r}])
        except SystemExit as end:
            assert not end.code, end.code
        print(*sys.modules)
    """
    modules = set(run_python(program).split())
    assert not modules & OF_OTHER_COMMANDS
    commands = {module for module in modules if module.startswith("fsmount.cli.commands.")}
    assert commands == (set() if name.startswith("-") else {f"fsmount.cli.commands.{name}"})


def test_every_public_name_is_there() -> None:
    assert {"attach", "Tree", "Group", "Counter", "UNLIMITED", "LimitExceeded", "NotHeld", "GroupRemoved", "TreeGone",
            "RegionCorrupt"} <= set(fsmount.__all__)  # fmt: skip
    for name in fsmount.__all__:
        assert hasattr(fsmount, name)
