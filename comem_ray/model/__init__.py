"""The backbone VLM, the adapter on it (LoRA + Q-Former), the memory encoder and the reasoner."""
