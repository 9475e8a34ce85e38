"""Mutated files and texts for every reader and grammar: the answer is a value or a DeradiffError, soon."""
