"""Mounts as the commands see them: the mount table, the region and its lock, checks before a mount, unmounting."""
