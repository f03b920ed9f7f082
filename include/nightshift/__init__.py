"""Nightshift: the whole life of a language model, every night, from one definition."""
