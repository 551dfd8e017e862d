"""The manual pages, written from what the program itself says: commands.py and files.py, in the words of roff.py."""
