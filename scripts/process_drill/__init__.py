"""`trfmoe drill --processes`: kills, pauses and disconnects the real processes of a run."""
