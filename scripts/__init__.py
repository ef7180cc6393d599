"""The `trfmoe` command, one file a subcommand."""
