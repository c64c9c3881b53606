"""Evaluation: questions asked in every arm (mode, number of items, knowledge size), their scores and figures.

Which questions and by which rule is comem_ray/tasks. Knows nothing of Ray, of training, or of how a report looks.
"""
