"""Models of runs and folders of stock transformers: one becomes the other."""
