"""An adapter for others: the layout of the Hugging Face Hub, a model card, and merged weights."""
