"""The quiet error: what the user asked for cannot be done, and no part of fsmount is at fault."""


class UserError(Exception):
    """Its text says in one line what is wrong and what to do; nothing was changed."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))
