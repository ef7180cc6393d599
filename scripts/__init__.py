"""The `trfmoe` command, one file or folder a subcommand."""
