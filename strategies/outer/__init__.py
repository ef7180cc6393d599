"""The outer optimizer: what the coordinator does with a voted update."""
