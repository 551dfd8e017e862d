"""The cost of fsmount beside other designs and tools. Each part is a module; __main__ is the command."""
