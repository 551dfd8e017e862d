"""The file that a description is kept in."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile

from .description import TreeDescription
from .document import ConfigError
from .reading import read


def load(path: str) -> TreeDescription:
    """What the file says.  OSError; ConfigError, which names the file."""
    with open(path, "rb") as file:
        text = file.read()
    try:
        return read(text)
    except ConfigError as error:
        raise ConfigError(error.text, error.line, path) from None


def store(path: str, text: str) -> None:
    """Writes the file anew, as a whole or not at all; one that is there keeps its mode and owner.  OSError."""
    target = os.path.realpath(path)
    try:
        status = os.stat(target)
    except FileNotFoundError:
        status = None
    if status is not None and not stat.S_ISREG(status.st_mode):
        with open(target, "w", encoding="utf-8") as stream:  # a terminal, a pipe: there is nothing to keep whole
            stream.write(text)
        return
    if status is not None:
        os.close(os.open(target, os.O_WRONLY))  # may it be written?
    directory = os.path.dirname(target)
    descriptor, beside = tempfile.mkstemp(prefix=".fsmount-save-", dir=directory)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if status is None:
                os.fchmod(descriptor, 0o666 & ~_umask())
            else:
                os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            os.fsync(descriptor)
        os.rename(beside, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    _sync(directory)


def _umask() -> int:
    """Can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(directory: str) -> None:
    """So that the new name outlives a crash too, where a directory can be told."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
