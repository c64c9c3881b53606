"""The backbone VLM, its adapter (LoRA and Q-Former), the memory encoder and the reasoner."""
