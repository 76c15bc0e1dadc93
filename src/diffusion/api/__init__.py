"""The library for people: a model to sample from, to look into, to edit with. Imports experiment, metrics and below."""
