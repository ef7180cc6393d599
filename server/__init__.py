"""The coordinator: Flower's ServerApp, the journal, the checkpoints and what is made from them."""
