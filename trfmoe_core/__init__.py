"""The model, its blocks, its data and its local training. Knows nothing of any network."""

from trfmoe_core.processors import wait_passively

wait_passively()  # before anything here imports torch
