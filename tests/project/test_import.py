"""What `import fsmount` brings along, and what it does not."""

from __future__ import annotations

import fsmount
from tests.shm.conftest import run_python

# What only the mount and the command line need, or what takes longer to import than all of fsmount.
ELSEWHERE = {"trio", "pyfuse3", "click", "dataclasses", "inspect", "subprocess", "asyncio", "logging",
             "multiprocessing", "prometheus_client"}  # fmt: skip


def test_importing_it_imports_nothing_it_does_not_need() -> None:
    program = """if True:
        import sys
        before = set(sys.modules)
        import fsmount
        tree = fsmount.Tree.create()
        tree.root["memory"].charge(1)
        print(*sorted(set(sys.modules) - before))
    """
    assert not ELSEWHERE & set(run_python(program).split())


def test_the_daemon_begins_without_what_only_a_read_of_metrics_needs() -> None:
    program = "import sys, fsmount.cli, fsmount.daemon.mount; print(*sys.modules)"
    assert "prometheus_client" not in run_python(program).split()


def test_a_command_begins_without_what_only_others_need() -> None:
    program = """if True:
        import sys
        from fsmount.cli import main
        main(["charge", "--help"], standalone_mode=False)
        print(*sys.modules)
    """
    modules = set(run_python(program).split())
    assert "fsmount.cli.commands.charge" in modules
    assert not modules & {"trio", "pyfuse3", "rich", "fsmount.cli.commands.mount", "fsmount.daemon.mount"}


def test_every_public_name_is_there() -> None:
    assert {"attach", "Tree", "Group", "Counter", "UNLIMITED", "LimitExceeded", "NotHeld", "GroupRemoved", "TreeGone",
            "RegionCorrupt"} <= set(fsmount.__all__)  # fmt: skip
    for name in fsmount.__all__:
        assert hasattr(fsmount, name)
