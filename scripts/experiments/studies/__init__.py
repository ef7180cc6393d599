"""The studies: one file each. It lists cells, trains one, and states the promises about the results."""
