"""From token stores to batches: rows, mixture of sources, training stream, and the windows of an evaluation."""
