"""CoMEM on Ray: continuous memory for vision-language models.

The library proper. It does not import ray: jobs/ and serve/ run it on a cluster.
"""

__version__ = "0.1.0"
