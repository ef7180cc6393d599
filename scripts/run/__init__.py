"""How runs are started on this machine: preflight, processes, simulation, and training without a federation."""
