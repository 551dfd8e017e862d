"""fsmount run.

The process that becomes the command opens the lease, so the holder is that process.  The lease is open here too.  So
what is held lasts while the command runs, also when this process is killed and the command goes on, and also when the
command closes what it does not know.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from typing import NoReturn

import click

from fsmount.cli.commands import complete
from fsmount.cli.ui.amounts import Amount, amounts
from fsmount.cli.ui.child import Child, ChildEnded, Opened
from fsmount.cli.ui.group import named_group, requested
from fsmount.cli.ui.program import find_program
from fsmount.cli.ui.report import end
from fsmount.cli.ui.waiting import WaitingCommand, timeout_of, wait_option
from fsmount.files import LeaseGroup

# Those of env(1): the command cannot be told from us by a status that it is unlikely to have.
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

It is given back when COMMAND ends, however that is: processes that it leaves behind hold nothing any more. When
fsmount run itself is killed by SIGKILL, COMMAND goes on and holds, until it and what it left behind have ended.
R.holders shows COMMAND and its process, also while that process still waits for room.

COMMAND is looked up before anything is waited for. A word behind --wait that reads as a time is the time: a COMMAND
called 30s is written ./30s, or follows --.

Signals are passed on to COMMAND, and its exit status is that of fsmount run, 128+N if signal N ended it. Without a
COMMAND that ran it is 75 if a limit refuses, 127 if there is no such command, 126 if it cannot be run, 125 for any
other error and 2 for a wrong command line.""",
)
@click.option(
    "-g", "--group", "path", metavar="GROUP", required=True, shell_complete=complete.directories, help="Who pays."
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
    help="How much of what; may be repeated.",
)
@wait_option
@click.argument("command", metavar="[--] COMMAND...", nargs=-1, required=True, shell_complete=complete.files)
def run(path: str, wanted: tuple[Amount, ...], seconds: float | None, command: tuple[str, ...]) -> None:
    """Hold N of each resource R in GROUP while COMMAND runs.

    COMMAND is not started unless all of it is to be had; until then nothing is held.
    """
    with named_group(path, wanted, _FAILED) as group, group:
        amounts = requested(group, wanted)
        program = _find(command[0], waits=seconds is not None)
        try:
            status = _run(group, amounts, seconds, program, command)
        except ChildEnded as ended:
            status = ended.status
    sys.exit(status)


def _run(
    group: LeaseGroup, amounts: Mapping[str, int], seconds: float | None, program: str, command: tuple[str, ...]
) -> int:
    def open_lease() -> Opened:
        lease = group.lease_for(amounts)
        return lease.resource or "", lease.open()

    with Child(program, command, open_lease) as child:
        opened = child.opened()
        if opened is not None:  # otherwise the first charge says what is wrong
            resource, descriptor = opened
            group.lease(resource or None).adopt(descriptor)
        if seconds is None:
            group.change(amounts)
        else:
            group.charge_waiting(amounts, timeout_of(seconds))
        try:
            return child.run_to_end()
        except OSError as error:
            _cannot_run(command[0], error)


def _find(command: str, *, waits: bool) -> str:
    try:
        return find_program(command)
    except FileNotFoundError as error:
        hint = "; nor is it a time for --wait, such as 30s" if waits and command[:1].isdigit() else ""
        end(command, f"{error.strerror}{hint}", _NOT_FOUND)
    except PermissionError as error:
        _cannot_run(command, error)


def _cannot_run(command: str, error: OSError) -> NoReturn:
    end(command, f"cannot be run: {error.strerror}", _NOT_FOUND if error.errno == errno.ENOENT else _NOT_RUN)
