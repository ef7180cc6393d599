"""The subcommands of `trfmoe`, one file each."""
