"""Parts beside Mixtral's own, a file each; `trfmoe_core.model.parts` reads whatever lies here."""
