"""From the bytes of a PDF to clean text, with two engines. Only worker processes (`extraction`) read PDFs."""
