"""Loads and stores the file with a description."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator

from fsmount.config.description import TreeDescription
from fsmount.config.reading import read
from fsmount.config.toml_document import ConfigError
from fsmount.paths.named_file import named_file
from fsmount.paths.walk import Found

# The maximum size, above that of any tree: a device, or a file of another user, can be endless.
_SIZE = 1 << 28

# The attempts of store(): each fails if another process replaces the file meanwhile.
_ATTEMPTS = 100


def load(path: str) -> TreeDescription:
    """The description in the file.  OSError, ConfigError: they name the file by `path`."""
    with _errors_name(path), named_file(path, writing=False) as found:
        if found.file < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with open(found.open(os.O_RDONLY), "rb") as file:
            text = file.read(_SIZE + 1)
        if len(text) > _SIZE:
            raise OSError(errno.EFBIG, f"too long for the description of a tree: at most {_SIZE >> 20} MiB")
    try:
        return read(text)
    except ConfigError as error:
        raise ConfigError(error.text, error.line, path) from None


def store(path: str, text: str) -> None:
    """Replaces the file atomically, and keeps its mode and owner.  OSError: it names the file by `path`."""
    with _errors_name(path):
        for _ in range(_ATTEMPTS):
            with named_file(path, writing=True) as found:
                if _stored(found, text.encode()):
                    return
        raise OSError(errno.EBUSY, "other processes keep replacing it: name another file")


def _stored(found: Found, text: bytes) -> bool:
    """Replaces the file.  False: another process replaced it meanwhile, and nothing was changed."""
    status = found.status
    if status is not None and (found.by_descriptor or not stat.S_ISREG(status.st_mode)):
        with open(
            found.open(os.O_WRONLY | os.O_TRUNC), "wb"
        ) as stream:  # a terminal or pipe is written to, not replaced
            stream.write(text)
        return True
    if status is not None:
        with contextlib.suppress(BlockingIOError):  # another process has a file lease, which a rename does not break
            os.close(found.open(os.O_WRONLY | os.O_NONBLOCK))  # checks the permission to write
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
                os.fchmod(descriptor, status.st_mode & 0o777)  # without set-user-ID and set-group-ID bits
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
    """The umask.  A process can read it only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(directory: int) -> None:
    """Makes the new name survive a crash, if the directory's file system supports that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """Makes each OSError in the block name this path, not a component of it or a temporary file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
