"""What `trfmoe data` and `--pdfs` work on: entries, options, and how prepared data are shown."""
