"""From PDF files to clean text: engines run in worker processes with limits, and their texts are cached by content."""
