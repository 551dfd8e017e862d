"""The file system from outside: real mounts, real processes, and files as any user sees them."""
