"""Losses over large vocabularies, a chunk of rows at a time."""
