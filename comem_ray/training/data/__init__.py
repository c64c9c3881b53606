"""Training data: samples, the questions they are made of, synthesis and translation."""
