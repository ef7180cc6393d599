"""What is wrong with the raw text of a page: one function for every kind of damage, and the judgement over all."""
