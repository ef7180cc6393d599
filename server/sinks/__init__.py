"""Where else the events of a run are shown while it goes on: Weights & Biases, TensorBoard, Prometheus."""
