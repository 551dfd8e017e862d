"""fsmount get."""

from __future__ import annotations

import click

from fsmount.admin.user_error import UserError
from fsmount.cli.ui import complete
from fsmount.cli.ui.group import counter, named_group
from fsmount.cli.ui.streams import echo
from fsmount.control_files.control_file import BYTES_ENDING
from fsmount.files import LeaseGroup
from fsmount.protocol.suggestions import did_you_mean


@click.command(
    epilog="""\b
Examples:
  fsmount get /run/counters/web                     all resources
  fsmount get /run/counters/web memory              one resource
  fsmount get /run/counters/web memory.usage        one number, without its key
  fsmount get --json /run/counters/web memory.usage memory.limit

Without a limit, limit is 9223372036854775807, as in the files.

The exit status is 0, 1 for an error and 2 for a wrong command line."""
)
@click.argument("path", metavar="GROUP", shell_complete=complete.directories)
@click.argument("words", metavar="[R[.KEY]]...", nargs=-1, shell_complete=complete.keys)
@click.option("--json", "as_json", is_flag=True, help="Print one object: resource -> key -> number.")
def get(path: str, words: tuple[str, ...], as_json: bool) -> None:
    """Print the numbers of a group's counters: a line R.KEY NUMBER for each KEY of R.stat.

    For a single R.KEY it prints only the number. All numbers of one resource are from the same moment.
    """
    with named_group(path) as group:
        found = _found(group, words or group.resources)
        if as_json:
            import json

            echo(json.dumps(found))
        elif len(words) == 1 and "." in words[0]:
            ((number,),) = (stat.values() for stat in found.values())
            echo(str(number))
        else:
            for resource, stat in found.items():
                for key, number in stat.items():
                    echo(f"{resource}.{key} {number}")


def _found(group: LeaseGroup, words: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Resource -> key -> number, in the order of the words."""
    stats: dict[str, dict[str, int]] = {}
    found: dict[str, dict[str, int]] = {}
    for word in words:
        resource, dot, key = word.partition(".")
        if resource not in stats:
            stats[resource] = counter(group, resource).stat()
        stat = stats[resource]
        if dot and key not in stat:
            meant = did_you_mean(word.removesuffix(BYTES_ENDING), (f"{resource}.{name}" for name in stat))
            raise UserError(f"there is no {word}; the keys of {resource} are: {', '.join(stat)}{meant}")
        found.setdefault(resource, {}).update({key: stat[key]} if dot else stat)
    return found
