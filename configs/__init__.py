"""Recipes: one YAML file each. All numbers of a run are in its recipe."""
