"""The options of attach()."""

from __future__ import annotations

from typing import Literal, get_args

#: The fate of the charges that an attachment holds at its end.
OnExit = Literal["release", "keep"]

#: How an attachment charges.
Transport = Literal["auto", "memory", "files"]


def ends_with_keep(on_exit: OnExit) -> bool:
    """Whether an attachment's charges go to the group at its end.  ValueError: on_exit has another value."""
    if on_exit not in get_args(OnExit):
        raise ValueError(f'on_exit is "release" or "keep", not {on_exit!r}')
    return on_exit == "keep"


def checked_transport(transport: Transport) -> Transport:
    """The transport.  ValueError: it has another value."""
    if transport not in get_args(Transport):
        raise ValueError(f'transport is "auto", "memory" or "files", not {transport!r}')
    return transport
