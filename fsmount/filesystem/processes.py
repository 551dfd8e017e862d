"""Which process called: the kernel names the calling thread, and charges belong to its process."""


def process_of(thread: int) -> int:
    """The process of a thread; the thread's own number if it is gone or out of sight."""
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            for line in status:
                if line.startswith(b"Tgid:"):
                    return int(line[len(b"Tgid:") :])
    except (OSError, ValueError):
        pass
    return thread
