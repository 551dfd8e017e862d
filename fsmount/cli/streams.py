"""The standard streams, where whoever started us has closed some."""

from __future__ import annotations

import os
import sys


def replace_closed() -> None:
    """Puts /dev/null in the place of each that is closed; a command that we run finds it closed all the same.

    Else the next file to be opened, such as a lease, would have the stream's number, and be written to by whoever means
    the stream.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
