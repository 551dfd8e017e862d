"""The group that a command names, through its files: whoever may use those may use the command."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from fsmount.cli.amounts import Amount
from fsmount.cli.report import FAILED, NoRoom, one_line
from fsmount.daemon.refused import Refused
from fsmount.errors import GroupRemoved, LimitExceeded, NotHeld
from fsmount.lease import LeaseCounter, LeaseGroup, group_at


@contextlib.contextmanager
def named_group(path: str, status: int = FAILED) -> Iterator[LeaseGroup]:
    """The group at a path; what goes wrong with it in the block ends the program with one line and the status."""
    with one_line(path, status), advised():
        if not path:  # a shell variable that is not set, and not the current directory
            raise FileNotFoundError
        yield group_at(os.path.realpath(path))


def only_mount(command: str) -> str:
    """Where the caller has his one mount; if there is none, or several, a line about the command ends the program."""
    from fsmount.daemon import trees

    with one_line(command):
        return trees.only_mount()


def counter(group: LeaseGroup, resource: str) -> LeaseCounter:
    """The counter of a resource.  Refused if there is none."""
    try:
        return group[resource]
    except KeyError as error:
        raise Refused(error.args[0]) from None


def requested(group: LeaseGroup, wanted: tuple[Amount, ...]) -> dict[str, int]:
    """Resource -> amount.  Refused if there is no such resource."""
    return {counter(group, resource).resource: amount for resource, amount in wanted}


@contextlib.contextmanager
def advised() -> Iterator[None]:
    """Says of an error what can be done about it."""
    try:
        yield
    except LimitExceeded as error:
        raise NoRoom(
            f"{error.requested} more of {error.resource} would pass the limit of {error.group}: {error.usage} of "
            f"{error.limit} are used; give some back there, or raise the limit"
        ) from None
    except NotHeld as error:
        raise Refused(
            f"{error.requested} of {error.resource} cannot be given back: the group itself holds {error.held}; what "
            f"processes and leases hold is theirs, see {error.resource}.holders"
        ) from None
    except GroupRemoved:
        raise Refused("the group was removed; mkdir makes it anew") from None
    except FileNotFoundError:
        raise Refused("there is no such directory; mkdir makes a group in a mounted tree") from None
    except NotADirectoryError:
        raise Refused("not a directory; a group is a directory of a mounted tree") from None
    except PermissionError as error:
        raise Refused(
            f"{error.strerror} ({os.fsdecode(error.filename)}); its owner or root can permit it with chmod or chown"
        ) from None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise Refused(f"{error.strerror}; name a directory of a mount, see fsmount mount") from None
        raise
