"""`trfmoe drill --processes`: kills, stops and cuts off the real processes of a run."""
