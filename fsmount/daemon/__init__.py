"""The process that serves a mount: start, readiness, signals, the holders that die, and the end."""
