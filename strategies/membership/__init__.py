"""Who takes part: which nodes are there, which are refused, which hold seats, and which sit out."""
