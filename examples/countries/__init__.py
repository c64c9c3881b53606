"""The small world of the quickstart: its knowledge base, its images and its small models. Nothing else imports it."""
