"""A mount without allow_other lets its own user in and nobody else, not even root."""

from __future__ import annotations

import os

from fsmount.admin.mount_table import mount_containing


def advice_on_private_mount(path: str) -> str:
    """Advice about a path that such a mount keeps the caller from; empty if none does."""
    mount = mount_containing(os.path.realpath(path))
    if mount is None or mount.uid == os.geteuid():
        return ""
    try:
        os.stat(os.path.dirname(mount.path))
        os.stat(mount.path)
    except PermissionError as error:
        if error.filename == mount.path:
            return f"user {mount.uid} mounted it without -o allow_other: act as that user, or mount it with that option"
    except OSError:
        pass
    return ""
