"""Marks the reads with which the kernel fills its page cache.  See _page_reads.c."""

def is_marking() -> bool:
    """Whether the reads of the mount are marked."""
