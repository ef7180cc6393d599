"""Experiments: many small federations, trained under faults and settings, and the promises about their results.

`runner.py` trains the cells of a study and keeps their results; `rows.py` compares them and judges promises. A study is
one file in `studies/`. `cell_training.py` and `cell_in_memory.py` train one cell.
"""

import trfmoe_core  # noqa: F401  It sets what must be set before torch is imported.
