"""A node: Flower's ClientApp over the trainer."""

import trfmoe_core  # noqa: F401  It sets what must be set before torch is imported.
