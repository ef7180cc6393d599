"""What stays on a node's disk between rounds, and how much room it may take."""
