"""Input and output of the subcommands: arguments, tables, terminals and exit statuses."""
