"""One module a benchmark: `load` reads its authors' files into questions, `score` judges answers by its rule."""
