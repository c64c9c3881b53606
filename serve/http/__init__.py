"""The HTTP API: what comes in, what goes out, and what is refused. Knows nothing of models."""
