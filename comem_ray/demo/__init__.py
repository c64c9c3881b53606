"""The small world of the quickstart: its knowledge base, its pictures and its small models. Nothing else imports it."""
