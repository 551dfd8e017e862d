"""The exceptions: each is an OSError with its errno, says what is wrong, and survives pickling."""

from __future__ import annotations

import errno
import pickle

import pytest

import fsmount

ERRORS = [
    (
        fsmount.LimitExceeded("/web", "memory", 101, 900, 1000),
        errno.ENOMEM,
        {"group": "/web", "resource": "memory", "requested": 101, "usage": 900, "limit": 1000},
    ),
    (
        fsmount.NotHeld("memory", 11, 10, "/web"),
        errno.ERANGE,
        {"resource": "memory", "requested": 11, "held": 10, "filename": "/web"},
    ),
    (fsmount.NotHeld("memory", 11, 10), errno.ERANGE, {"resource": "memory", "requested": 11, "held": 10}),
    (fsmount.GroupRemoved("/web"), errno.ENODEV, {"group": "/web"}),
    (fsmount.TreeGone("/dev/shm/region"), errno.ENOTCONN, {"region": "/dev/shm/region"}),
    (fsmount.TreeGone(None, "no daemon"), errno.ENOTCONN, {"region": None}),
    (fsmount.RegionCorrupt("cell 5 is free", "/r"), errno.EUCLEAN, {"found": "cell 5 is free", "region": "/r"}),
    (fsmount.LockTimeout(4711, "/r"), errno.ETIMEDOUT, {"pid": 4711, "region": "/r"}),
]


@pytest.mark.parametrize(("error", "number", "carried"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_is_an_os_error_that_carries_the_details(
    error: OSError, number: int, carried: dict[str, object]
) -> None:
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert type(one) is type(error)
        assert isinstance(one, OSError)
        assert one.errno == number
        assert {name: getattr(one, name) for name in carried} == carried
        assert str(one) == str(error)
        for value in carried.values():
            if value is not None and value != carried.get("resource"):
                assert str(value) in str(one)
