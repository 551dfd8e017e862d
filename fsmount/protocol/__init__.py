"""The protocol between both ends of a mount: file names, thresholds, records and the control channel."""
