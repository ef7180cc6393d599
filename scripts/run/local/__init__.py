"""A run on one machine without a federation: its recipe, its training, how it goes on, and its ranks."""
