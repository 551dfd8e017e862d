"""Paths that a user names, where another user may control a part of the way."""
