"""The local optimizers: one file each, registered by the name that `training.optimizer` gives."""
