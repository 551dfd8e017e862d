"""The installation: all of fsmount, or the distribution fsmount-client, which leaves out all that needs the engine."""

from __future__ import annotations

#: Module that is missing -> the reason, and the way to get it.
_REASONS = {
    "fsmount.engine": "not in the client that is installed here: uninstall fsmount-client, then install fsmount, which "
    "on Debian takes the packages fuse3 libfuse3-dev pkg-config gcc python3-dev",
    "fsmount.engine._binding": "the engine is not built here: run scripts/setup, or pip install",
}


def missing_engine() -> str:
    """Why this installation has no engine, and what to do about it; empty if it has the engine."""
    try:
        import fsmount.engine  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in _REASONS:
            raise
        return _REASONS[error.name]
    return ""
