"""A tree written down: the file that `fsmount save` writes, people edit, and `fsmount mount --config` reads.

    batch = 0                          # "auto" unless said

    [resources]                        # memory = "bytes" unless said
    memory = "bytes"
    tokens = "count"

    [capacity]                         # groups, holders, cells
    groups = 1024

    ["/web/api"]                       # a group, by its path; those above it are made too
    owner = "ann"                      # of the group and its files: a name or a number; who mounts, unless said
    group = "staff"
    mode = "0750"                      # of the directory
    memory.limit = "512M"              # as it would be written to the file
    tokens.soft_limit = 100
    files."*".owner = "ben"            # of all its files ...
    files."tokens.lease".mode = "0666" # ... and of one

A path is UTF-8. A byte of a name that is not, and a percent sign, are %XX, as in a URL. A resource whose name is one of
owner, group, mode and files is written with its unit, as in "files:count".limit.

A description is what such a file says: reading.py makes it from the text (document.py knows the lines) and writing.py
the text from it, tree.py makes it from a tree and a tree from it, difference.py compares it with a tree, and file.py
keeps the text. write() is not exported here: a daemon has no use for it, nor for the library it needs.
"""

from fsmount.config.description import Access, GroupDescription, TreeDescription
from fsmount.config.difference import Difference, differences
from fsmount.config.document import ConfigError
from fsmount.config.file import load, store
from fsmount.config.reading import read
from fsmount.config.tree import build, describe

__all__ = [
    "Access",
    "ConfigError",
    "Difference",
    "GroupDescription",
    "TreeDescription",
    "build",
    "describe",
    "differences",
    "load",
    "read",
    "store",
]
