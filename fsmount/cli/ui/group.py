"""The group that a command names, used through its files: their permissions are the permissions of the command."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

from fsmount.admin.user_error import UserError
from fsmount.cli.ui.amounts import Amount
from fsmount.cli.ui.numbers import described
from fsmount.cli.ui.report import FAILED, NoRoom, one_line
from fsmount.errors import GroupRemoved, LimitExceeded, NotHeld
from fsmount.files import LeaseCounter, LeaseGroup, group_at
from fsmount.files.counter import write_amount
from fsmount.protocol.suggestions import nearest_group


@contextlib.contextmanager
def named_group(path: str, wanted: Sequence[Amount] = (), status: int = FAILED) -> Iterator[LeaseGroup]:
    """The group at a path.  An error of the group in the block ends the program with one line and the status.

    wanted: the typed amounts, which the line repeats as typed.
    """
    with one_line(path, status):
        with advised(meant=path):
            if not path:  # from an unset shell variable; realpath() would return the current directory
                raise FileNotFoundError
            group = group_at(_real_path(path))
        with advised(), _refusals_described(group, wanted):
            yield group


def _real_path(path: str) -> str:
    """The path without links.  UserError if root would follow a link of another user, who could choose the group."""
    if os.geteuid() != 0:
        return os.path.realpath(path)
    from fsmount.paths.named_file import real_directory
    from fsmount.paths.walk import Trap

    try:
        return real_directory(path)
    except Trap as error:
        raise UserError(str(error.strerror)) from None


def only_mount(command: str) -> str:
    """The caller's only mount.  Without one, or with several, the program ends with one line about the command."""
    from fsmount.admin import named_tree

    with one_line(command):
        return named_tree.only_mount()


def counter(group: LeaseGroup, resource: str) -> LeaseCounter:
    """The counter of a resource.  UserError: the group has no such resource."""
    try:
        return group[resource]
    except KeyError as error:
        raise UserError(error.args[0]) from None


def requested(group: LeaseGroup, wanted: tuple[Amount, ...]) -> dict[str, int]:
    """Resource -> amount.  UserError: the group has no such resource."""
    return {counter(group, resource).resource: amount for resource, amount, _ in wanted}


def set_limit(counted: LeaseCounter, key: str, amount: int, typed: str) -> None:
    """Sets a limit, or another settable file, to a typed amount.  NoRoom: the usage is larger."""
    from fsmount.control_files.table import SETTABLE

    try:
        write_amount(counted, SETTABLE[key], amount)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise NoRoom(
            f"the limit of {counted.resource} cannot be {described(amount, counted.unit, typed)}: the usage is "
            f"{described(counted.usage, counted.unit)}; uncharge first, or set at least the usage"
        ) from None


@contextlib.contextmanager
def _refusals_described(group: LeaseGroup, wanted: Sequence[Amount]) -> Iterator[None]:
    """Turns a refusal into a UserError with the amounts as typed, what is used or held, and advice."""
    typed = {(name, amount): text for name, amount, text in wanted}

    def there(error: LimitExceeded | NotHeld, amount: int) -> str:
        return described(amount, group.units[error.resource])

    def asked(error: LimitExceeded | NotHeld) -> str:
        text = typed.get((error.resource, error.requested), "")
        return described(error.requested, group.units[error.resource], text)

    try:
        yield
    except LimitExceeded as error:
        raise NoRoom(
            f"{asked(error)} more of {error.resource} would pass the limit of {error.group}: "
            f"{there(error, error.usage)} of {there(error, error.limit)} are used; uncharge some there, or raise the "
            "limit"
        ) from None
    except NotHeld as error:
        raise UserError(
            f"{asked(error)} of {error.resource} cannot be uncharged: the group itself holds "
            f"{there(error, error.held)}; only processes and leases can release the rest, see {error.resource}.holders"
        ) from None


@contextlib.contextmanager
def advised(meant: str = "") -> Iterator[None]:
    """Turns an error into a UserError with advice; meant: the path of a group that may be mistyped."""
    try:
        yield
    except GroupRemoved:
        raise UserError("the group was removed; mkdir makes a new one") from None
    except FileNotFoundError:
        near = nearest_group(meant) if meant else None
        advice = f"did you mean {near}?" if near else "mkdir makes a group in a mounted tree"
        raise UserError(f"there is no such directory; {advice}") from None
    except NotADirectoryError:
        raise UserError("not a directory; a group is a directory of a mounted tree") from None
    except PermissionError as error:
        from fsmount.admin.private_mounts import advice_on_private_mount

        name = os.fsdecode(error.filename)
        advice = advice_on_private_mount(name) or "its owner or root can permit it with chmod or chown"
        raise UserError(f"{error.strerror} ({name}); {advice}") from None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise UserError(f"{error.strerror}; name a directory of a mount, see fsmount mount") from None
        raise
