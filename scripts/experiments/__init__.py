"""Experiments: many small federations, trained under faults and settings, and the promises about their results.

`runner.py` trains the cells of a study and keeps their results; `rows.py` compares them and judges promises. A study is
one file: `drill.py`, `witness.py`, `wire_loss.py`. `federation.py` and `memory_federation.py` train one cell.
"""
