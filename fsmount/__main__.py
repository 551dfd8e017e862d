"""python -m fsmount: the same as the command fsmount."""

from fsmount.cli import main

if __name__ == "__main__":
    main(prog_name="fsmount")
