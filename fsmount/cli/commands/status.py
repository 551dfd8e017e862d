"""fsmount status."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from fsmount.admin import region_path
from fsmount.admin.bounded_child import NoAnswer, bounded
from fsmount.admin.daemon_process import describe_no_answer
from fsmount.admin.named_path import OpenPath, open_path
from fsmount.admin.user_error import UserError
from fsmount.cli.ui import complete
from fsmount.cli.ui.printable import printable
from fsmount.cli.ui.report import one_line
from fsmount.cli.ui.streams import echo
from fsmount.errors import LOST_DAEMON, says_daemon_is_lost
from fsmount.protocol.status import Capacity, Status, read_status, user_name
from fsmount.version import __version__

_NOT_UNDERSTOOD = "the answer of its daemon is not understood: restart the daemon with the version of this command"


@click.command(
    epilog="""\b
Examples:
  fsmount status
  fsmount status /run/counters
  fsmount status --json /run/counters | jq .capacity.groups.used

Root and the owner of the mount may use the whole capacity. Any other user gets a share: at most as much of it as is
left for others.

The exit status is 0, 1 if no daemon serves the mount or for an error, and 2 for a wrong command line."""
)
@click.argument("path", metavar="[MOUNTPOINT]", required=False, shell_complete=complete.directories)
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def status(path: str | None, as_json: bool) -> None:
    """Print the daemon, the region and the capacity of a mount, and the users with the largest part of the capacity.

    MOUNTPOINT may be left out if you have only one mount. It may also be a group, or a bind mount of one.
    """
    from fsmount.admin.named_tree import only_mount

    with one_line("status" if path is None else path):
        found = _status(only_mount() if path is None else path)
        if as_json:
            echo(json.dumps(_object(found)))
        else:
            for line in _lines(found):
                echo(printable(line))


def _status(path: str) -> Status:
    try:
        with open_path(path) as place:
            mount = place.mount
            if mount is None or not mount.is_fsmount:
                raise UserError(_nothing_there(place))
            try:
                return bounded(lambda: read_status(place.descriptor), user=mount.owner, keep=[place.descriptor])
            except NoAnswer:
                raise UserError(describe_no_answer(mount)) from None
    except FileNotFoundError as error:
        if error.filename is None or not str(error.filename).endswith("status"):
            raise UserError("there is no such directory: name a mount point, or a group of a mount") from None
        raise UserError("its daemon has no status: it is of another version, or the group was removed") from None
    except NotADirectoryError:
        raise UserError("not a directory: name a mount point, or a group of a mount") from None
    except ValueError:
        raise UserError(_NOT_UNDERSTOOD) from None
    except OSError as error:
        if says_daemon_is_lost(error):
            raise UserError(f"no daemon serves it: {LOST_DAEMON}") from None
        raise


def _nothing_there(place: OpenPath) -> str:
    region = region_path.find(place.path)
    if region is None:
        return "nothing of fsmount is mounted there: name a mount point, or a group of a mount"
    return f"no daemon serves it: the counters of an earlier mount are in {region}, and fsmount mount takes them over"


def _object(status: Status) -> dict[str, object]:
    daemon = status.daemon
    return {
        "mountpoint": status.mountpoint,
        "daemon": {
            "pid": daemon.pid,
            "uid": daemon.uid,
            "user": user_name(daemon.uid),
            "since": _time(daemon.since).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "version": daemon.version,
        },
        "region": status.region._asdict(),
        "resources": status.resources,
        "capacity": {
            kind: {
                "capacity": found.capacity,
                "used": found.used,
                "largest": [{"user": user_name(uid), "uid": uid, "used": used} for uid, used in found.largest],
            }
            for kind, found in status.capacity.items()
        },
        "version": __version__,
    }


def _lines(status: Status) -> list[str]:
    daemon, region = status.daemon, status.region
    since = _time(daemon.since).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [
        f"mount       {status.mountpoint}",
        f"daemon      pid {daemon.pid}, user {user_name(daemon.uid)}, since {since}, version {daemon.version}",
        f"region      {region.path}, {_size(region.allocated)} of {_size(region.size)} in memory",
        f"resources   {', '.join(f'{name} ({unit})' for name, unit in status.resources.items())}",
    ]
    if daemon.version != __version__:
        lines.append(f"version     {__version__}, of this command")
    rows = [("what", "used", "capacity", "", "most of it")]
    rows += [_row(kind, found) for kind, found in status.capacity.items()]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    lines.append("")
    for kind, used, capacity, part, largest in rows:
        numbers = f"{used:>{widths[1]}}  {capacity:>{widths[2]}}  {part:>{widths[3]}}"
        lines.append(f"{kind:<{widths[0]}}  {numbers}  {largest}".rstrip())
    return lines


def _row(kind: str, found: Capacity) -> tuple[str, str, str, str, str]:
    part = f"{100 * found.used // found.capacity}%" if found.capacity > 0 else ""
    largest = ", ".join(f"{user_name(uid)} {used}" for uid, used in found.largest)
    return kind.replace("_", " "), str(found.used), str(found.capacity), part, largest


def _time(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise UserError(_NOT_UNDERSTOOD) from None


def _size(amount: int) -> str:
    return f"{amount / (1 << 20):.1f} MiB"
