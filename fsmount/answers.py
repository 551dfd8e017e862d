"""What the engine answers, as the public errors."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .engine import EngineError
from .errors import GroupRemoved, LockTimeout, RegionCorrupt, TreeGone

if TYPE_CHECKING:
    from .group import Group
    from .tree import Tree

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


def public_error(error: EngineError, tree: Tree, group: Group | None) -> OSError:
    """What the engine's answer is to the user, but for what only a charge can answer."""
    if error.errno in (errno.EBADF, errno.ENOTCONN):
        return TreeGone(tree.path)
    if error.errno == errno.EUCLEAN:
        return RegionCorrupt(error.text, tree.path)
    if error.errno == errno.ETIMEDOUT:
        return LockTimeout(error.pid, tree.path)
    if group is None:
        return OSError(error.errno, error.strerror, tree.path)
    if error.errno == errno.ENODEV:
        return GroupRemoved(group.last_path())
    return OSError(error.errno, error.strerror, group.last_path())
