"""From files whose text has to be extracted to clean text: worker processes with limits, and a cache by content."""
