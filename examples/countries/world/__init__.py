"""The data of the example, from facts to questions, all of it made by seeds.

countries   facts and coastlines of real countries; which are held out of training
lexicon     words for invented names; invented: countries that exist nowhere, for training and tests
outlines    draws maps; maps: the map of a country
sentences   texts in six languages; knowledge: the knowledge base as a WIT file
questions   the demo's questions; evaluation_questions: those of `evaluate`; scoring: the rule for their answers
"""
