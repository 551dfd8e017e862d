"""What fsmount costs, beside what it is compared with. Each part is a module; __main__ is the command."""
