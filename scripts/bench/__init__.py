"""`trfmoe bench`: measurements of speed and memory, one file each, run in a process of its own (`child.py`)."""
