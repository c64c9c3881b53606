"""From a question (image, text or both) to the ids of the knowledge items nearest to it."""
