"""Asks the questions of tasks in every arm and computes the figures. Knows nothing of pages or Ray."""
