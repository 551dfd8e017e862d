"""The file that a description is kept in."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator

from fsmount.config.description import TreeDescription
from fsmount.config.document import ConfigError
from fsmount.config.reading import read
from fsmount.paths.named_file import named_file
from fsmount.paths.walk import Found

# Beyond what any tree takes: a file of another user, or a device, can be endless.
_SIZE = 1 << 28

# How often a file may be replaced by others while it is written here.
_ATTEMPTS = 100


def load(path: str) -> TreeDescription:
    """The description in the file.  OSError and ConfigError, which name the file as the caller does."""
    with _errors_name(path), named_file(path, writing=False) as found:
        if found.file < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with open(found.open(os.O_RDONLY), "rb") as file:
            text = file.read(_SIZE + 1)
        if len(text) > _SIZE:
            raise OSError(errno.EFBIG, f"longer than any description of a tree, which has {_SIZE >> 20} MiB at most")
    try:
        return read(text)
    except ConfigError as error:
        raise ConfigError(error.text, error.line, path) from None


def store(path: str, text: str) -> None:
    """Replaces the file as a whole, or not at all; its mode and owner stay.

    OSError, which names the file as the caller does.
    """
    with _errors_name(path):
        for _ in range(_ATTEMPTS):
            with named_file(path, writing=True) as found:
                if _stored(found, text.encode()):
                    return
        raise OSError(errno.EBUSY, "others replace it again and again: name another file")


def _stored(found: Found, text: bytes) -> bool:
    """False: something else was put in its place meanwhile, and nothing was changed."""
    status = found.status
    if status is not None and (found.by_descriptor or not stat.S_ISREG(status.st_mode)):
        with open(found.open(os.O_WRONLY | os.O_TRUNC), "wb") as stream:  # a terminal, a pipe: never replaced
            stream.write(text)
        return True
    if status is not None:
        with contextlib.suppress(BlockingIOError):  # somebody has a lease on it, which replacing it does not break
            os.close(found.open(os.O_WRONLY | os.O_NONBLOCK))  # may it be written?
    beside = f".fsmount-save-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o600, dir_fd=found.directory)
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            if status is None:
                os.fchmod(descriptor, 0o666 & ~_umask())
            else:
                os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, status.st_mode & 0o777)  # a description is no program
            os.fsync(descriptor)
        if replaceable := found.is_there():
            os.rename(beside, found.name, src_dir_fd=found.directory, dst_dir_fd=found.directory)
    except BaseException:
        _remove(beside, found.directory)
        raise
    if replaceable:
        _sync(found.directory)
    else:
        _remove(beside, found.directory)
    return replaceable


def _remove(name: str, directory: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=directory)


def _umask() -> int:
    """Can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(directory: int) -> None:
    """So that the new name outlives a crash too, where the file system of the directory can do it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """An OSError in the block names this path, and no part of it, and no file beside it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
