"""`trfmoe demo continue`: a finished model, continued by three owners, beside each alone and one machine with all."""
