"""The subcommands of `trfmoe`, one file each."""

import trfmoe_core  # noqa: F401  It sets what must be set before torch is imported.
