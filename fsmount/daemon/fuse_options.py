"""The options that FUSE gets: ours, then the user's."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator

from fsmount.admin.remove_mount import plain_words
from fsmount.admin.user_error import UserError
from fsmount.protocol.suggestions import did_you_mean

#: Usual options: a message about a mistyped one names the nearest.
_COMMON = (
    "allow_other", "allow_root", "default_permissions", "ro", "rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec",
    "atime", "noatime", "sync", "async", "dirsync", "fsname", "max_read", "context",
)  # fmt: skip


def fuse_options(given: Iterable[str]) -> set[str]:
    """Ours and the given ones (each a comma-separated list); of two that contradict each other the later counts."""
    from fsmount.filesystem import pyfuse3

    ours = [*pyfuse3.default_options, "default_permissions", "fsname=fsmount", "subtype=fsmount"]
    chosen: dict[str, str] = {}
    for option in [*ours, *(option for text in given for option in split_options(text))]:
        chosen[_subject(option)] = option
    if chosen["subtype"] != "subtype=fsmount":
        raise UserError("the subtype is fsmount's own: leave subtype= out (fsname= is yours to choose)")
    for option in chosen.values():
        if not option.isascii():
            raise UserError(f"option {option}: FUSE takes ASCII only")
    return set(chosen.values())


def split_options(text: str) -> list[str]:
    """At the commas; one behind a backslash belongs to the option, as everywhere in FUSE."""
    return [option for option in re.findall(r"(?:[^,\\]|\\.?)+", text) if option]


def _subject(option: str) -> str:
    """What an option is about: the same for `ro` and `rw`, `dev` and `nodev`, `fsname=a` and `fsname=b`."""
    name = option.partition("=")[0]
    return {"rw": "ro", "async": "sync"}.get(name, name.removeprefix("no"))


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Catches what libfuse and fusermount3 write to stderr inside; the value gives it as one line.

    They say nothing in any other way: the functions only fail.
    """
    caught = os.memfd_create("stderr")
    stderr = os.dup(2)
    os.dup2(caught, 2)

    def told() -> str:
        size = os.fstat(caught).st_size
        return plain_words(os.pread(caught, size, 0).decode(errors="replace"))

    try:
        yield told
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(caught)


def explain_failure(told: str) -> str:
    """What FUSE told about a mount that failed, and what to do where that is known."""
    if "user_allow_other" in told:
        return (
            "allow_other and allow_root are not for ordinary users here: "
            "root can allow them with user_allow_other in /etc/fuse.conf"
        )
    if "mount_max" in told:
        return "too many FUSE file systems are mounted: root can raise mount_max in /etc/fuse.conf"
    if unknown := re.search(r"unknown option\(s\): `-o (.*?)'", told) or re.search(r"unknown option '(.*?)'", told):
        meant = did_you_mean(unknown[1].partition("=")[0], _COMMON)
        return f"FUSE does not know the option {unknown[1]}: correct -o{meant}"
    if "no write access to mountpoint" in told or "not owned by user" in told:
        return "an ordinary user can mount only on a directory of his own: choose one, or mount as root"
    if os.geteuid() == 0 and ("mountpoint /proc/" in told or "Operation not permitted" in told):
        # libfuse asks fusermount3 then, which is no more than root here
        return (
            "this root may not mount in this mount namespace: it takes CAP_SYS_ADMIN there; "
            "in a user namespace begin with unshare --user --mount"
        )
    return f"FUSE cannot mount there: {told or 'it does not say why'}"
