"""How requests of many users share one model."""
