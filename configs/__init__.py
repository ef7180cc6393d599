"""Recipes: one YAML each, the only place where numbers live."""
