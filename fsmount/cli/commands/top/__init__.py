"""fsmount top: the groups, or the holders of one group, live in a terminal or printed repeatedly."""

from fsmount.cli.commands.top.command import top

__all__ = ["top"]
