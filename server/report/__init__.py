"""What a run shows: the HTML page with its charts."""
