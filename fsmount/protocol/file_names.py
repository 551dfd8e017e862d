"""The control files as a process knows them without their table: some names, and the most that there can be."""

#: The most control files.  The engine has as many attribute slots for each resource (FSM_SLOTS).
KINDS_MAX = 64

#: The hidden file by which processes of a tree talk to the daemon (control_channel.py).
CHANNEL_FILE = ".fsmount"

#: The hidden file with the state of the mount (status.py).
STATUS_FILE = ".fsmount.status"

#: The file with all counters, in the root directory alone.
METRICS_FILE = "metrics"
