"""The type of an argument that names a mount point, a region, or something in a mount."""

from __future__ import annotations

import os

import click


class UnseenPath(click.Path):
    """A path that nobody looks at while the command line is read: click's own stat() waits for a stopped daemon."""

    def convert(self, value: str | bytes | os.PathLike[str] | os.PathLike[bytes], param: object, ctx: object) -> str:
        return os.fsdecode(value)
