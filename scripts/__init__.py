"""The `trfmoe` command, one file or folder a subcommand."""

import trfmoe_core  # noqa: F401  It sets what must be set before torch is imported.
