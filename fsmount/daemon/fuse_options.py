"""The options for FUSE, and the errors that FUSE reports about them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator

from fsmount.admin.remove_mount import plain_words
from fsmount.admin.user_error import UserError
from fsmount.protocol.suggestions import did_you_mean

#: Common options: a message about an unknown one suggests the nearest.
_COMMON = (
    "allow_other", "allow_root", "default_permissions", "ro", "rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec",
    "atime", "noatime", "sync", "async", "dirsync", "fsname", "max_read", "context",
)  # fmt: skip


def fuse_options(given: Iterable[str]) -> set[str]:
    """The options of fsmount, then those given as comma-separated lists.  A later option overrides an earlier one."""
    from fsmount.filesystem import pyfuse3

    ours = [*pyfuse3.default_options, "default_permissions", "fsname=fsmount", "subtype=fsmount"]
    chosen: dict[str, str] = {}
    for option in [*ours, *(option for text in given for option in split_options(text))]:
        chosen[_setting(option)] = option
    if chosen["subtype"] != "subtype=fsmount":
        raise UserError("the subtype must be fsmount: leave subtype= out, or choose an fsname= instead")
    for option in chosen.values():
        if not option.isascii():
            raise UserError(f"option {option}: FUSE takes ASCII only")
    return set(chosen.values())


def split_options(text: str) -> list[str]:
    """Splits at commas; after a backslash a comma belongs to the option, as elsewhere in FUSE."""
    return [option for option in re.findall(r"(?:[^,\\]|\\.?)+", text) if option]


def _setting(option: str) -> str:
    """The setting that an option changes: the same for `ro` and `rw`, `dev` and `nodev`, `fsname=a` and `fsname=b`."""
    name = option.partition("=")[0]
    return {"rw": "ro", "async": "sync"}.get(name, name.removeprefix("no"))


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Captures stderr in the block; the value returns it as one line.

    libfuse and fusermount3 report the reason of a failure only there.
    """
    captured = os.memfd_create("stderr")
    stderr = os.dup(2)
    os.dup2(captured, 2)

    def text() -> str:
        size = os.fstat(captured).st_size
        return plain_words(os.pread(captured, size, 0).decode(errors="replace"))

    try:
        yield text
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(captured)


def explain_failure(stderr: str) -> str:
    """The text of an error for a failed mount, from the messages of FUSE; with advice if the reason is known."""
    if "user_allow_other" in stderr:
        return (
            "ordinary users may not use allow_other and allow_root here: "
            "root can allow it with user_allow_other in /etc/fuse.conf"
        )
    if "mount_max" in stderr:
        return "too many FUSE file systems are mounted: root can raise mount_max in /etc/fuse.conf"
    if unknown := re.search(r"unknown option\(s\): `-o (.*?)'", stderr) or re.search(r"unknown option '(.*?)'", stderr):
        meant = did_you_mean(unknown[1].partition("=")[0], _COMMON)
        return f"FUSE does not know the option {unknown[1]}: correct -o{meant}"
    if "no write access to mountpoint" in stderr or "not owned by user" in stderr:
        return "an ordinary user can mount only on a directory that this user owns: choose one, or mount as root"
    if os.geteuid() == 0 and ("mountpoint /proc/" in stderr or "Operation not permitted" in stderr):
        # libfuse runs fusermount3 then, which has no more rights than this root
        return (
            "root has no CAP_SYS_ADMIN in this mount namespace, and cannot mount: "
            "in a user namespace begin with unshare --user --mount"
        )
    return f"FUSE cannot mount there: {stderr or 'it gives no reason'}"
