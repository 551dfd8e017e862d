"""The kernel's cache of names, attributes, sizes and pages, and the calls that keep it true."""
