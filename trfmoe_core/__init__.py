"""The model, its blocks, its data and its local training. Knows nothing of any network."""
