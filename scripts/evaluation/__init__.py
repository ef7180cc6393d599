"""Scores finished models on text: runs, exports, and any folder that transformers opens."""
