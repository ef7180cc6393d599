"""The parts of `trfmoe bench model`: steps that are compared, optimizers, memory, the machine, and CUDA."""
