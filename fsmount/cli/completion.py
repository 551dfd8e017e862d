"""fsmount completion."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, get_completion_class

_SHELLS = ("bash", "zsh", "fish")


class _Bash(BashComplete):
    """Puts no space behind NAME=, and offers nothing there: for bash, NAME and = and what follows are three words."""

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' line
    COMPREPLY=()
    [[ ${COMP_WORDS[COMP_CWORD]} == = || ${COMP_WORDS[COMP_CWORD-1]} == = ]] && return
    for line in $(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete "$1"); do
        case $line in
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
            plain,*)
                COMPREPLY+=("${line#plain,}")
                [[ $line != *= ]] || compopt -o nospace
                ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@click.command(
    epilog="""\b
Examples:
  eval "$(fsmount completion bash)"                                        in ~/.bashrc
  fsmount completion zsh >"${fpath[1]}/_fsmount"
  fsmount completion fish >~/.config/fish/completions/fsmount.fish

The exit status is 0, 1 for an error and 2 for a wrong command line."""
)
@click.argument("shell", metavar="|".join(_SHELLS), type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that has a shell complete this command.

    Commands, options, groups and resources are completed; bash has to be 4.4 or later.
    """
    template = _Bash if shell == "bash" else get_completion_class(shell)
    assert template is not None
    click.echo(template(ctx.find_root().command, {}, "fsmount", "_FSMOUNT_COMPLETE").source())
