"""Errors of a command: one line on standard error, and an exit status.

| status | meaning |
|---|---|
| 0 | success |
| 1 | an error of any kind |
| 2 | a wrong command line, which click reports |
| 75 | a refusal because of the present usage: the same command may succeed later |

75 is EX_TEMPFAIL of sysexits.h, "the user is invited to retry".  It lets a script tell a refusal from a mistake.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from fsmount.admin.user_error import UserError
from fsmount.cli.ui.streams import complain

FAILED = 1
NO_ROOM = os.EX_TEMPFAIL


class NoRoom(UserError):
    """A refusal because of the present usage."""


@contextlib.contextmanager
def one_line(subject: str, status: int = FAILED) -> Iterator[None]:
    """Ends the program with a status and one line about the subject, for each error that a user can cause."""
    try:
        yield
    except NoRoom as refused:
        end(subject, str(refused), NO_ROOM)
    except UserError as refused:
        end(subject, str(refused), status)
    except BrokenPipeError:
        raise  # the reader of a pipe has ended: click ends the program quietly
    except OSError as error:
        name = None if error.filename is None else os.fsdecode(error.filename)
        where = "" if name in (None, subject) else f" ({name})"
        end(subject, f"{error.strerror or error}{where}", status)


def end(subject: str, text: str, status: int) -> NoReturn:
    """Ends the program with a status and one line."""
    complain(f"fsmount: {subject}: {text}")
    sys.exit(status)
