"""The names of the files that a process looks for without the table of control files."""

#: The hidden file by which processes of a tree talk to the daemon (control_channel.py).
CHANNEL_FILE = ".fsmount"

#: The hidden file with the state of the mount (status.py).
STATUS_FILE = ".fsmount.status"

#: The file with all counters, in the root directory alone.
METRICS_FILE = "metrics"
