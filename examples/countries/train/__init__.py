"""How the demo's small model is trained: stages that the paper's recipe does not have. Nothing else imports it."""
