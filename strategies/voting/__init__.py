"""How the replicas of a block become one update: the rules, their arithmetic, and the outer step."""
