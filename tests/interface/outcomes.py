"""The result or the error of a call, in a form that can be compared between the transports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fsmount

#: The details that the public errors carry.
_DETAILS = ("errno", "filename", "filename2", "group", "resource", "requested", "usage", "limit", "held", "region")

Action = Callable[[Any], object]


def outcome(action: Action, of: object) -> object:
    """The result of an action, or its error with all details."""
    try:
        return _comparable(action(of))
    except Exception as error:
        return type(error), str(error), tuple(getattr(error, name, None) for name in _DETAILS)


def _comparable(result: object) -> object:
    if isinstance(result, fsmount.Group):
        return "group", result.path
    if isinstance(result, fsmount.Counter):
        return "counter", result.resource, result.group.path
    if type(result) is list:
        return [_comparable(element) for element in result]
    return result
