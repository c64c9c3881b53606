"""One module a benchmark, for the files as their authors publish them.

`rows` reads them; `question` is what a row's answer is scored against, `asked` what a model is asked; `load` is all
questions at once, and `score` judges answers by the benchmark's rule. A row that makes no question is a ValueError that
names the file and the line.
"""
