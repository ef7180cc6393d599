"""One round: requests to nodes, checks of their replies, the votes that they cast, and what the round leaves."""
