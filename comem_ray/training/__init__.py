"""Training of the adapter: samples, objective, optimizer and checkpoints. Knows nothing of Ray."""
