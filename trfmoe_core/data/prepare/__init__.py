"""From documents to token stores on disk: cut, deduplicated, split into training and held-out text, tokenized."""
