"""What a recipe will cost, before it is run: parameters, memory, bytes, time and disk."""
