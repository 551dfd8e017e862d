"""What a shell is told when somebody presses tab: see fsmount completion."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from fsmount.control_files.table import SETTABLE
from fsmount.files import LeaseGroup, group_at
from fsmount.protocol.listings import STAT_KEYS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def directories(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Has the shell complete a GROUP itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Has it complete the name of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def amounts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """R=."""
    return _items(ctx, incomplete, ["="])


def limits(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """R.limit= and every other file that `fsmount set` writes."""
    return _items(ctx, incomplete, [f".{name}=" for name in SETTABLE])


def keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """R, and R.KEY when the dot is there."""
    return _items(ctx, incomplete, [f".{key}" for key in STAT_KEYS] if "." in incomplete else [""])


def _items(ctx: click.Context, incomplete: str, endings: list[str]) -> list[str]:
    group = _group(ctx)
    words = [resource + ending for resource in (group.resources if group else ()) for ending in endings]
    return [word for word in words if word.startswith(incomplete) and not incomplete.endswith("=")]


def _group(ctx: click.Context) -> LeaseGroup | None:
    """The group that was named before, if it is one."""
    try:
        return group_at(os.path.realpath(os.path.expanduser(ctx.params.get("path") or "")))
    except OSError:
        return None
