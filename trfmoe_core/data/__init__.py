"""From files as one finds them to packed batches of tokens. Light to import: no torch, readers load on first use."""
