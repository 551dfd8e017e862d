"""The open files of a mount: one class for each kind."""
