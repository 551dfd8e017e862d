""" "Did you mean": the name that is nearest to a mistyped one, as the end of an error's text."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterable, Iterator

from fsmount.protocol.file_names import CHANNEL_FILE

#: The largest number of compared names; more would delay the error.
_NAMES_MAX = 10_000


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean NAME?" for the name nearest to a word; empty if none is near."""
    found = nearest(word, known)
    return f"; did you mean {found}?" if found else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The name nearest to a word, ignoring case; None if none is near."""
    from difflib import get_close_matches

    names = {name.casefold(): name for name in itertools.islice(known, _NAMES_MAX)}
    found = get_close_matches(word.casefold(), names, n=1)
    return names[found[0]] if found else None


def no_resource(name: object, known: Iterable[str]) -> KeyError:
    """The error for a resource that a tree does not count."""
    text = f"no resource {name!r} here; there are: {', '.join(known)}"
    return KeyError(text + did_you_mean(name, known) if isinstance(name, str) else text)


def no_group(path: str) -> FileNotFoundError:
    """The error for a path without a group."""
    near = nearest_group(path)
    text = "there is no such group" + (f"; did you mean {near}?" if near else "")
    return FileNotFoundError(errno.ENOENT, text, path)


def nearest_group(path: str) -> str | None:
    """The group that a path may mean, if its first missing directory is in a group; None if none is near."""
    above, name = os.path.split(path.rstrip("/"))
    rest = ""
    while above and not os.path.lexists(above):
        rest = os.path.join(name, rest) if rest else name
        above, name = os.path.split(above)
    if not os.path.lexists(os.path.join(above, CHANNEL_FILE)):
        return None
    found = nearest(name, _directories(above or "."))
    if found is None:
        return None
    group = os.path.join(above, found)
    whole = os.path.join(group, rest)
    return whole if rest and os.path.isdir(whole) else group


def _directories(path: str) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            yield from (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
