"""The process that serves a mount: its start, its readiness, signals, the end of holders, and its own end."""
