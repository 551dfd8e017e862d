"""Private mounts: without allow_other the kernel admits only the mount's own user, not even root."""

from __future__ import annotations

import os

from fsmount.admin.mount_table import mount_containing


def advice_on_private_mount(path: str) -> str:
    """Advice for a path that is inside another user's private mount; otherwise empty."""
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
