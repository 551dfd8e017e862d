"""Marks the reads that the kernel does for its page cache.  See _page_reads.c."""

def is_marking() -> bool:
    """Whether the reads of the mount are marked."""
