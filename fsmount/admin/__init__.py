"""Mounts as commands see them: the mount table, a region's path, file and lock, the daemon's identity, unmounting."""
