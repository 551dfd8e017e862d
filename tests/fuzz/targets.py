"""The Python targets: each takes any bytes, and raises if it finds an error in the result."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from fsmount.config import ConfigError, read
from fsmount.config.writing import write
from fsmount.quantities import UNLIMITED, parse, parse_group_lease, parse_lease

CORPUS = Path(__file__).parent / "corpus"


def numbers(data: bytes) -> None:
    """The text of a write is a quantity that formats to the same text, or one of three errors that quote it."""
    for reader in (parse, lambda text: parse(text, limit=True), lambda text: parse_lease(text)[1]):
        try:
            value = reader(data)
        except OSError as error:
            assert error.errno in (errno.EINVAL, errno.ERANGE, errno.E2BIG), error
            assert len(str(error)) < 500 and str(error).isprintable(), error
        else:
            assert 0 <= value <= UNLIMITED, value
            assert parse(b"%d" % value) == value


def requests(data: bytes) -> None:
    """The text of a write to a lease of all resources is a command with amounts, or an error that quotes it."""
    try:
        word, amounts = parse_group_lease(data)
    except OSError as error:
        assert error.errno in (errno.EINVAL, errno.ERANGE, errno.E2BIG), error
        assert len(str(error)) < 500 and str(error).isprintable(), error
    else:
        assert amounts or word in ("give", "keep", "release"), word
        assert all(0 <= amount <= UNLIMITED for _, amount in amounts.values()), amounts
        signs = {"set": "", "add": "+", "subtract": "-"}
        words = [f"{name}={signs[operation]}{amount}" for name, (operation, amount) in amounts.items()]
        again = " ".join(words if word == "change" else [word, *words])
        assert parse_group_lease(os.fsencode(again)) == (word, amounts)


def config(data: bytes) -> None:
    """A config is a description that is written and read back unchanged, or an error in one of its lines."""
    try:
        description = read(data)
    except ConfigError as error:
        assert 1 <= error.line <= data.count(b"\n") + 1, error
        assert "\n" not in str(error), error
    else:
        assert read(write(description).encode()) == description


TARGETS: dict[str, Callable[[bytes], None]] = {"numbers": numbers, "requests": requests, "config": config}


def corpus(name: str) -> list[Path]:
    """The first inputs, with all that once failed."""
    return sorted((CORPUS / name).glob("*"))
