"""The manual page fsmount(1), from the --help texts of the commands."""

from __future__ import annotations

import click

from fsmount.cli import COMMANDS, main

from .roff import head, item, paragraphs, subtitle, title

_EXIT = {
    "0": "Success.",
    "1": "An error of any kind. It is one line on standard error: the path, what is wrong, and what to do.",
    "2": "A wrong command line.",
    "75": "A refusal that may succeed later: a limit would be passed, or set below the usage; or a timeout.",
}


def page() -> str:
    """The text of the page."""
    with click.Context(main, info_name="fsmount") as ctx:
        lines = head("fsmount", 1, "hierarchical resource counters as files")
        lines += [*title("SYNOPSIS"), ".B fsmount", ".I COMMAND", "[\\fIOPTION\\fR]...", "[\\fIARGUMENT\\fR]..."]
        lines += [*title("DESCRIPTION"), *paragraphs(main.help or "")]
        lines += paragraphs(
            "A mounted tree is a hierarchy of groups, which are directories; fsmount(5) is about their files."
        )
        lines += title("COMMANDS")
        for name in COMMANDS:
            command = main.get_command(ctx, name)
            assert command is not None
            lines += _command(command, click.Context(command, parent=ctx, info_name=name))
    lines += title("EXIT STATUS")
    for status, text in _EXIT.items():
        lines += item(status, text)
    lines += [*paragraphs("fsmount run has more; see there."), *title("SEE ALSO"), ".BR fsmount (5)"]
    return "\n".join(lines) + "\n"


def _command(command: click.Command, ctx: click.Context) -> list[str]:
    lines = subtitle(f"fsmount {ctx.info_name} {' '.join(command.collect_usage_pieces(ctx))}")
    lines += paragraphs(command.help or "")
    for parameter in command.params:
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
            lines += item(*record)
    return lines + paragraphs(command.epilog or "")
