"""fsmount top: the groups, or the holders of one, looked at again and again, in a terminal or printed."""

from fsmount.cli.commands.top.command import top

__all__ = ["top"]
