"""Processes that commands start and must end: their guard, their group, and the SuperLink's control interface."""
