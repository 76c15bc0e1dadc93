"""The library for people: a model to sample from, to inspect, to edit with. Imports experiment, metrics and below."""
