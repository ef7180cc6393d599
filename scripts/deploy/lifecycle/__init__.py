"""What happens to a kit after it was written: nodes come and go, keys and releases change, SuperNodes start and end."""
