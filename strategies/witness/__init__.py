"""Judgement by harm: how much a node's updates raise the loss on a text that the coordinator trusts."""
