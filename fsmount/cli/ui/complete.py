"""Completion: the words that a shell offers for an argument, see `fsmount completion`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click
    from click.shell_completion import CompletionItem


def directories(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the path of a directory."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the path of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def amounts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """R= for each resource R."""
    return _begun([f"{resource}=" for resource in _resources(ctx)], incomplete)


def limits(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """R.limit=, and every other R.KEY= that `fsmount set` writes, for each resource R."""
    from fsmount.control_files.table import SETTABLE

    return _begun([f"{resource}.{key}=" for resource in _resources(ctx) for key in SETTABLE], incomplete)


def keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Each resource R, or after the dot each R.KEY of its R.stat."""
    if "." not in incomplete:
        return _begun(_resources(ctx), incomplete)
    from fsmount.protocol.listings import STAT_KEYS

    return _begun([f"{resource}.{key}" for resource in _resources(ctx) for key in STAT_KEYS], incomplete)


def _begun(words: Iterable[str], incomplete: str) -> list[str]:
    """The words that begin with the typed text.  A text that ends in = is complete."""
    return [word for word in words if word.startswith(incomplete) and not incomplete.endswith("=")]


def _resources(ctx: click.Context) -> tuple[str, ...]:
    """The resources of the group that an earlier argument names."""
    from fsmount.files import group_at

    try:
        return group_at(os.path.realpath(os.path.expanduser(ctx.params.get("path") or ""))).resources
    except OSError:
        return ()
