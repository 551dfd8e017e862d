"""fsmount completion."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from fsmount.cli.ui.streams import echo

# The scripts of click have faults: those for bash and zsh add a space after NAME=; that for fish cuts a description at
# a comma, and drops a path that contains quotes.


class _Bash(BashComplete):
    """Completes nothing after NAME=, which bash splits into the words NAME, = and the rest."""

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


class _Zsh(ZshComplete):
    """Works also from a file in $fpath, which zsh reads at the first tab."""

    source_template = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local type value description
    local -a words_described words_whole words_begun
    for type value description in "${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) \
%(complete_var)s=zsh_complete %(prog_name)s)}"; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files ;;
            plain)
                if [[ $description != _ ]]; then
                    words_described+=("$value:$description")
                elif [[ $value == *= ]]; then
                    words_begun+=("$value")
                else
                    words_whole+=("$value")
                fi
                ;;
        esac
    done
    (($#words_described)) && _describe -V unsorted words_described
    (($#words_whole)) && compadd -V unsorted -a words_whole
    (($#words_begun)) && compadd -V unsorted -S '' -a words_begun
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""


class _Fish(FishComplete):
    source_template = """\
function %(complete_func)s
    for line in (env COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -ct) \
%(complete_var)s=fish_complete %(prog_name)s)
        set -l item (string split -m 1 , -- $line)
        switch $item[1]
            case dir
                __fish_complete_directories
            case file
                complete -C "'' "(commandline -ct)
            case plain
                echo $item[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


_SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


@click.command(
    epilog="""\b
Examples:
  eval "$(fsmount completion bash)"                                        in ~/.bashrc
  eval "$(fsmount completion zsh)"                                         in ~/.zshrc, below compinit
  fsmount completion fish >~/.config/fish/completions/fsmount.fish         once

The exit status is 0, 1 for an error and 2 for a wrong command line."""
)
@click.argument("shell", metavar="|".join(_SHELLS), type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    It completes commands, options, groups and resources. For bash it needs version 4.4 or later.
    """
    template = _SHELLS[shell](ctx.find_root().command, {}, "fsmount", "_FSMOUNT_COMPLETE")
    echo(template.source())
