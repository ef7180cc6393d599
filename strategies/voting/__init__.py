"""How the replicas of a block become one update: the rules and their arithmetic."""
