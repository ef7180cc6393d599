"""Messages between coordinator and nodes: their form, their limits, and how they are sent and received."""
