"""`trfmoe bench`: one file a benchmark, each run in a process of its own."""
