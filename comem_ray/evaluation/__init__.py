"""Scoring of answers by the official rules of the benchmarks. Knows no model, no files and nothing of Ray."""
