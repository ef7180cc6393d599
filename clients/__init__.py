"""A node: Flower's ClientApp over the trainer."""
