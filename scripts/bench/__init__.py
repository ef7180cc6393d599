"""`trfmoe bench`: measurements of speed and memory, one file each, run in a process of its own (`child.py`)."""

import trfmoe_core  # noqa: F401  It sets what must be set before torch is imported.
