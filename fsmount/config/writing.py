"""Description to text."""

from __future__ import annotations

from collections.abc import Iterator

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
from fsmount.config.user_names import group_name, user_name
from fsmount.protocol.names import escape
from fsmount.quantities import UNLIMITED

_COMMENT = """\
# A tree of counters, as `fsmount save` writes it and `fsmount mount --config` makes it; charges are not part of it.
# By default there is no limit, the mounting user is the owner, and directories and files have their usual modes.
"""

_SUFFIXES = ("", "K", "M", "G", "T", "P", "E")


def write(description: TreeDescription) -> str:
    """The text of a description, in its order."""
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
    """A line; empty without a value."""
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
    yield _line((*keys, OWNER), None if access.uid is None else user_name(access.uid))
    yield _line((*keys, GROUP), None if access.gid is None else group_name(access.gid))
    yield _line((*keys, MODE), None if access.mode is None else f"{access.mode:04o}")


def _amount(value: int, unit: str) -> str | int:
    """An amount of bytes has a suffix if that is exact."""
    if value == UNLIMITED:
        return "max"
    power = 0
    while unit == "bytes" and value and value % 1024 == 0:
        value //= 1024
        power += 1
    return f"{value}{_SUFFIXES[power]}" if power else value
