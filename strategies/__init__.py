"""Placement, voting, the outer step, and the Flower strategy that runs rounds with them."""
