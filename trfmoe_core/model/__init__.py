"""The mixture-of-experts transformer, equal to `transformers`' Mixtral on the same weights."""
