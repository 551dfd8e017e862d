"""A tree as text: the file that `fsmount save` writes, users edit, and `fsmount mount --config` reads.

    batch = 0                          # by default "auto"

    [resources]                        # by default memory = "bytes"
    memory = "bytes"
    tokens = "count"

    [capacity]                         # groups, holders, cells
    groups = 1024

    ["/web/api"]                       # a group, by its path; missing groups above it are made too
    owner = "ann"                      # of the group and its files: a name or a number; by default the mounting user
    group = "staff"
    mode = "0750"                      # of the directory
    memory.limit = "512M"              # as written to the file memory.limit_in_bytes
    tokens.soft_limit = 100
    files."*".owner = "ben"            # of all its files ...
    files."tokens.lease".mode = "0666" # ... and of one

A path is UTF-8; other bytes of a name, and percent signs, are %XX, as in a URL. A resource whose name is owner, group,
mode or files is written with its unit, as in "files:count".limit.

| file | does |
|---|---|
| description.py | the content of such a file, as data classes |
| reading.py, toml_document.py | text to description, with line numbers for errors |
| writing.py | description to text |
| tree.py | tree to description, and description to tree |
| differences.py | compares a description with a running tree |
| file.py | loads and stores the text |

write() is not exported here: a daemon does not need it, nor the library tomlkit that it imports.
"""

from fsmount.config.description import Access, GroupDescription, TreeDescription
from fsmount.config.differences import Difference, differences
from fsmount.config.file import load, store
from fsmount.config.reading import read
from fsmount.config.toml_document import ConfigError
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
