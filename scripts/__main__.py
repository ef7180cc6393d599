"""`python -m scripts` is the same as `trfmoe`."""

from scripts.main import main

main()
