"""Facts about control files for processes that do not load their table: some names, and the largest number of kinds."""

#: The largest number of kinds.  The engine has as many attribute slots for each resource (FSM_SLOTS).
KINDS_MAX = 64

#: The hidden file through which the processes of a tree reach the daemon (control_channel.py).
CHANNEL_FILE = ".fsmount"

#: The hidden file with the state of the mount (status.py).
STATUS_FILE = ".fsmount.status"

#: The file with all counters, in the root directory alone.
METRICS_FILE = "metrics"
