"""The names of users and groups on this machine."""

from __future__ import annotations

import functools
import grp
import pwd
from collections.abc import Callable


@functools.cache
def user_name(uid: int) -> str | int:
    """The user's name, or the number if there is no printable name."""
    return _name(uid, lambda: pwd.getpwuid(uid).pw_name)


@functools.cache
def group_name(gid: int) -> str | int:
    """The group's name, or the number if there is no printable name."""
    return _name(gid, lambda: grp.getgrgid(gid).gr_name)


def _name(number: int, look_up: Callable[[], str]) -> str | int:
    try:
        name = look_up()
    except KeyError:
        return number
    return name if name.isprintable() and name else number
