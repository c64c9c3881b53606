"""Checkpoints that others released: the format of CoMEM's authors, read tensor by tensor and made into an adapter."""
