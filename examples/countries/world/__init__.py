"""The world of the example: facts, maps, texts in six languages, questions; real countries and invented ones."""
