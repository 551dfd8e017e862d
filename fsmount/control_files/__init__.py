"""The control files of a group: one class declares each file and says what it shows and does.

table.py derives from these classes whatever depends on the set of files.
"""
