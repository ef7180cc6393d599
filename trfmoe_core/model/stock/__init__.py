"""Folders of stock transformers: reading one as a model of ours, and writing a model of ours as one."""
