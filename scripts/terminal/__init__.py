"""What a person sees in a terminal: lines, bars, tables, and streams that fail."""
