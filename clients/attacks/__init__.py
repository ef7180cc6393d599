"""Faults that a node plays on purpose, so that drills can show that the federation bears them.

`attack.py` says what an attack is and holds the registry; `mod.py` plays an attack in a node; every other file holds
attacks of one kind. An attack of your own is one more file here, see `attack.py`.
"""
