"""How the daemon knows of holders it was never told of, of pids that are used again, and with few descriptors."""
