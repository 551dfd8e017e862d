"""The type of an argument that names a mount point, a region, or a path in a mount."""

from __future__ import annotations

import os

import click


class UnseenPath(click.Path):
    """A path that click does not stat() while it reads the command line: that would wait for a stopped daemon."""

    def convert(self, value: str | bytes | os.PathLike[str] | os.PathLike[bytes], param: object, ctx: object) -> str:
        return os.fsdecode(value)
