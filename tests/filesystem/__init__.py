"""The file system, from outside: real mounts, real processes, and the files as anybody sees them."""
