"""Training as generators of steps. Imports experiment, metrics and the floors below."""
