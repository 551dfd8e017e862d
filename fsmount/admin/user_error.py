"""An error for the user: the request cannot be fulfilled, and fsmount is not at fault."""


class UserError(Exception):
    """One line that says what is wrong and what to do.  Nothing was changed."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))
