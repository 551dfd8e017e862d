"""How a command reports what went wrong: one line, and its exit status."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from fsmount.daemon.refused import Refused


@contextlib.contextmanager
def one_line(subject: str) -> Iterator[None]:
    """Ends the program with status 1 and one line about the subject for what a user can cause."""
    try:
        yield
    except Refused as refused:
        _end(subject, str(refused))
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if error.filename is not None else ""
        _end(subject, f"{error.strerror or error}{where}")


def _end(subject: str, text: str) -> None:
    line = " ".join(f"fsmount: {subject}: {text}".splitlines())
    print(line.encode(errors="backslashreplace").decode(), file=sys.stderr)
    sys.exit(1)
