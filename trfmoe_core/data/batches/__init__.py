"""From token stores to batches: rows of tokens, mixtures of sources, the training stream and the evaluation."""
