"""How runs are started on this machine: processes, simulation, submission, and training without a federation."""
