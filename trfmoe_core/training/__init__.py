"""The local training loop of a node, evaluation, devices and local state."""
