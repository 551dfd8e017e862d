"""fsmount run.

The process that becomes COMMAND opens the lease, so that process is the holder.  This process has the lease open, too.
So the lease lasts as long as COMMAND runs, even if this process is killed, and even if COMMAND closes descriptors that
it does not know.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

import click

from fsmount.cli.ui import complete
from fsmount.cli.ui.amounts import Amount, amounts
from fsmount.cli.ui.child import Child, ChildEnded, Opened
from fsmount.cli.ui.group import named_group, requested
from fsmount.cli.ui.program import find_program
from fsmount.cli.ui.report import end
from fsmount.cli.ui.waiting import WaitingCommand, timeout_of, wait_option
from fsmount.files import LeaseGroup

# The exit statuses of env(1), which commands rarely use themselves.
_FAILED = 125
_NOT_RUN = 126
_NOT_FOUND = 127


@click.command(
    cls=WaitingCommand,
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  fsmount run -g /run/counters/web -r memory=2G -- make -j4
  fsmount run -g /run/counters/hosts/db -r tokens=1 -- ssh db uptime
  fsmount run -g /run/counters/gpu -r memory=8G -r slots=1 --wait=30s -- ./train

All of it is released when COMMAND ends, however it ends, even if COMMAND leaves processes behind. If fsmount run is
killed by SIGKILL, COMMAND continues and holds its charges until it and the processes that it leaves behind have ended.
R.holders shows COMMAND and its process, also while it waits for room.

COMMAND is looked up before fsmount run waits. A word behind --wait that reads as a time is TIME: write a COMMAND named
30s as ./30s, or after --.

Signals are passed on to COMMAND. The exit status is that of COMMAND, or 128+N if signal N ended it. If COMMAND did not
run, it is 75 if a limit refuses, 127 if there is no such command, 126 if it cannot be run, 125 for any other error and
2 for a wrong command line.""",
)
@click.option(
    "-g",
    "--group",
    "path",
    metavar="GROUP",
    required=True,
    shell_complete=complete.directories,
    help="The group to charge.",
)
@click.option(
    "-r",
    "--resource",
    "wanted",
    metavar="R=N",
    required=True,
    multiple=True,
    callback=amounts,
    shell_complete=complete.amounts,
    help="The amount N of resource R; may be repeated.",
)
@wait_option
@click.argument("command", metavar="[--] COMMAND...", nargs=-1, required=True, shell_complete=complete.files)
@click.pass_obj
def run(
    leave: Callable[[int], object] | None,
    path: str,
    wanted: tuple[Amount, ...],
    seconds: float | None,
    command: tuple[str, ...],
) -> None:
    """Hold N of each resource R in GROUP while COMMAND runs.

    COMMAND starts when all resources are charged; until then nothing is held.
    """
    with named_group(path, wanted, _FAILED) as group, group:
        amounts = requested(group, wanted)
        program = _find(command[0], waits=seconds is not None)
        try:
            status = _run(group, amounts, seconds, program, command)
        except ChildEnded as ended:
            status = ended.status
    if leave is not None:
        leave(status)  # the program fsmount ends without unloading its modules, which takes 4 ms
    sys.exit(status)


def _run(
    group: LeaseGroup, amounts: Mapping[str, int], seconds: float | None, program: str, command: tuple[str, ...]
) -> int:
    def open_lease() -> Opened:
        lease = group.lease_for(amounts)
        return lease.resource or "", lease.open()

    with Child(program, command, open_lease) as child:
        opened = child.opened()
        if opened is not None:  # otherwise the first charge opens the lease here, and reports why it cannot
            resource, descriptor = opened
            group.lease(resource or None).adopt(descriptor)
        if seconds is None:
            group.charge(amounts)
        else:
            group.charge(amounts, wait=True, timeout=timeout_of(seconds))
        try:
            return child.run_to_end()
        except OSError as error:
            _cannot_run(command[0], error)


def _find(command: str, *, waits: bool) -> str:
    try:
        return find_program(command)
    except FileNotFoundError as error:
        hint = ", and it is not a time for --wait, such as 30s" if waits and command[:1].isdigit() else ""
        end(command, f"{error.strerror}{hint}", _NOT_FOUND)
    except PermissionError as error:
        _cannot_run(command, error)


def _cannot_run(command: str, error: OSError) -> NoReturn:
    end(command, f"cannot be run: {error.strerror}", _NOT_FOUND if error.errno == errno.ENOENT else _NOT_RUN)
