"""From a question (image, text or both) to the ids of its nearest knowledge items."""
