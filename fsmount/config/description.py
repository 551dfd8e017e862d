"""What a file says about a tree.  None, and what is not there: not said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from fsmount.control_files.table import SAVED

#: What a group says beside its resources.
OWNER, GROUP, MODE, FILES = GROUP_KEYS = ("owner", "group", "mode", "files")

#: Stands for all files of a group.
ALL_FILES = "*"

#: The mode of a group that says none.
DIRECTORY_MODE = 0o755


class Access(NamedTuple):
    """Who may do what with a directory or a file."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


UNSAID = Access()


@dataclass
class GroupDescription:
    path: tuple[str, ...]  # the names on the way from the root
    access: Access = UNSAID  # of the directory; the owners are its files' too
    all_files: Access = UNSAID  # the owners of its files, where they are others; no mode
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
    tree: list[GroupDescription] = field(default_factory=list)  # a group after those above it
