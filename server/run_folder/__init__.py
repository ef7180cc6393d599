"""The run folder: journal, checkpoints, signatures, and the checks of all of them."""
