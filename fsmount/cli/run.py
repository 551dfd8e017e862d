"""fsmount run.

The leases are open here and in the command, which inherits them.  So what is held lasts while the command runs, also
when this process is killed and the command goes on, and also when the command closes what it does not know.
"""

from __future__ import annotations

import sys

import click

from fsmount.cli import complete
from fsmount.cli.amounts import Amount, amounts
from fsmount.cli.child import run_to_end
from fsmount.cli.group import named_group, requested
from fsmount.cli.report import end
from fsmount.cli.waiting import WaitingCommand, timeout_of, wait_option

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
    with named_group(path, _FAILED) as group, group:
        if seconds is None:
            group.change(requested(group, wanted))
        else:
            group.charge_waiting(requested(group, wanted), timeout_of(seconds))
        group.hand_down()
        status = _run(command)
    sys.exit(status)


def _run(command: tuple[str, ...]) -> int:
    try:
        if not command[0]:
            raise FileNotFoundError
        return run_to_end(command)
    except FileNotFoundError:
        end(command[0], "there is no such command", _NOT_FOUND)
    except OSError as error:
        end(command[0], f"cannot be run: {error.strerror}", _NOT_RUN)
