"""Generates the manual pages from the program itself: commands.py and files.py, formatted by roff.py."""
