"""From PDF files to clean text: engines in worker processes with limits, and a cache by content."""
