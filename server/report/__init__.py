"""What a run shows: its history, the HTML page with charts, and metric sinks."""
