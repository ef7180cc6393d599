"""From files to batches of tokens. Imports no torch; libraries for file formats are imported on first use.

The order of the work: `sources` finds files (with `formats`, `pdf` and `hub`), `prepare` splits and tokenizes their
documents into stores (with `tokenizers`), `batches` makes rows, the training stream and the evaluation. `documents` has
the types that they share, `sample` makes sample data.
"""
