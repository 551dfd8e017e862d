"""What the engine answers, as the public errors."""

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
    """A method whose engine errors are raised as its object's public_error() says."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except EngineError as error:
            owner: Any = args[0]
            raise owner.public_error(error) from None

    return call


def public_error(error: EngineError, region: str, group_path: Callable[[], str] | None = None) -> OSError:
    """What the engine's answer is to the user, but for what only a charge can answer.

    group_path: tells the path of the group that was asked, if it was one; only called where the error is about that.
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
