"""From the description to the text."""

from __future__ import annotations

import functools
import grp
import pwd
from collections.abc import Callable, Iterator

import tomlkit

from fsmount.config.description import (
    ALL_FILES,
    FILES,
    GROUP,
    GROUP_KEYS,
    MODE,
    OWNER,
    Access,
    GroupDescription,
    TreeDescription,
)
from fsmount.protocol.names import escape
from fsmount.quantities import UNLIMITED

_COMMENT = """\
# A tree of counters, as `fsmount save` writes it and `fsmount mount --config` makes it, without what is charged.
# Where nothing is said there is no limit, the owner is who mounts, and modes are the usual ones.
"""

_SUFFIXES = ("", "K", "M", "G", "T", "P", "E")


def write(description: TreeDescription) -> str:
    """The text that says it, in the order of the description."""
    resources = description.resources or {"memory": "bytes"}
    capacity = [_line((name,), getattr(description, name)) for name in ("groups", "holders", "cells")]
    tables = [
        [_line(("batch",), description.batch)],
        _table("resources", [_line((name,), unit) for name, unit in (description.resources or {}).items()]),
        _table("capacity", capacity),
    ]
    for group in description.tree:
        path = "/" + "/".join(map(escape, group.path))
        tables.append([_header(path), *_group(group, resources)])
    return "\n".join([_COMMENT, *filter(None, map("".join, tables))])


def _table(name: str, lines: list[str]) -> list[str]:
    return [_header(name), *lines] if any(lines) else []


def _header(name: str) -> str:
    return f"[{tomlkit.key(name).as_string()}]\n"


def _line(keys: tuple[str, ...], value: str | int | None) -> str:
    """Empty if there is nothing to say."""
    return "" if value is None else f"{tomlkit.key(keys).as_string()} = {tomlkit.item(value).as_string()}\n"


def _group(group: GroupDescription, resources: dict[str, str]) -> Iterator[str]:
    yield from _access((), group.access)
    for resource, unit in resources.items():
        key = f"{resource}:{unit}" if resource in GROUP_KEYS else resource
        for setting, amounts in group.settings.items():
            if resource in amounts:
                yield _line((key, setting), _amount(amounts[resource], unit))
    yield from _access((FILES, ALL_FILES), group.all_files)
    for name, access in group.files.items():
        yield from _access((FILES, name), access)


def _access(keys: tuple[str, ...], access: Access) -> Iterator[str]:
    yield _line((*keys, OWNER), _user(access.uid))
    yield _line((*keys, GROUP), _user_group(access.gid))
    yield _line((*keys, MODE), None if access.mode is None else f"{access.mode:04o}")


def _amount(value: int, unit: str) -> str | int:
    """With a suffix where that is exact and the unit is bytes."""
    if value == UNLIMITED:
        return "max"
    power = 0
    while unit == "bytes" and value and value % 1024 == 0:
        value //= 1024
        power += 1
    return f"{value}{_SUFFIXES[power]}" if power else value


@functools.cache
def _user(uid: int | None) -> str | int | None:
    return None if uid is None else _named(uid, lambda: pwd.getpwuid(uid).pw_name)


@functools.cache
def _user_group(gid: int | None) -> str | int | None:
    return None if gid is None else _named(gid, lambda: grp.getgrgid(gid).gr_name)


def _named(number: int, look_up: Callable[[], str]) -> str | int:
    """The name that the number has here, itself if none that can be written."""
    try:
        name = look_up()
    except KeyError:
        return number
    return name if name.isprintable() and name else number
