"""The public errors for the engine's answers."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from fsmount.engine import EngineError
from fsmount.errors import GroupRemoved, LockTimeout, RegionCorrupt, TreeGone

P = ParamSpec("P")
T = TypeVar("T")


def in_public(method: Callable[P, T]) -> Callable[P, T]:
    """Decorates a method so that its object's public_error() translates the engine's errors."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except EngineError as error:
            owner: Any = args[0]
            raise owner.public_error(error) from None

    return call


def public_error(error: EngineError, region: str, group_path: Callable[[], str] | None = None) -> OSError:
    """The public error for an error of the engine, except for a refused charge.

    group_path: returns the path of the group, if the call is about one; called only for an error about the group.
    """
    if error.errno in (errno.EBADF, errno.ENOTCONN):
        return TreeGone(region)
    if error.errno == errno.EUCLEAN:
        return RegionCorrupt(error.text, region)
    if error.errno == errno.ETIMEDOUT:
        return LockTimeout(error.pid, region)
    if group_path is None:
        return OSError(error.errno, error.strerror, region)
    if error.errno == errno.ENODEV:
        return GroupRemoved(group_path())
    return OSError(error.errno, error.strerror, group_path())
