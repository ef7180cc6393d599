"""What the coordinator decides: placement, membership, votes, and the rounds that apply them."""
