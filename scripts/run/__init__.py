"""How runs are started on this machine: preflight, processes, simulation, and training without a federation."""

import trfmoe_core  # noqa: F401  It sets what must be set before torch is imported.
