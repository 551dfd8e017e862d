"""The description of a tree.  None, or an absent entry, means that the file does not set the value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from fsmount.control_files.table import SAVED

#: The keys of a group that are not resources.
OWNER, GROUP, MODE, FILES = GROUP_KEYS = ("owner", "group", "mode", "files")

#: The name that stands for all files of a group.
ALL_FILES = "*"

#: The default mode of a group's directory.
DIRECTORY_MODE = 0o755


class Access(NamedTuple):
    """The owner, group and mode of a directory or a file."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


UNSET = Access()


@dataclass
class GroupDescription:
    path: tuple[str, ...]  # the names from the root down
    access: Access = UNSET  # the directory's; its files inherit owner and group
    all_files: Access = UNSET  # the owner and group of its files, if they differ from the directory's; no mode
    files: dict[str, Access] = field(default_factory=dict)  # of single files, by name
    #: Name of a saved control file -> resource -> amount.
    settings: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in SAVED})


@dataclass
class TreeDescription:
    resources: dict[str, str] | None = None  # name -> unit, in the order of their files
    batch: int | str | None = None
    groups: int | None = None
    holders: int | None = None
    cells: int | None = None
    tree: list[GroupDescription] = field(default_factory=list)  # parents before children
