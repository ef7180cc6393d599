"""The study `as-one`: is a federation's model as good as that of one machine that has all the text?

Both see the same number of tokens in the same number of steps: N nodes with batches of B, one machine with batches
of N x B. Every row gets the learning rate that is best for it.
"""
