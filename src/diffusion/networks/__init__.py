"""The networks: (x, t, cond) -> tensor; they know nothing of diffusion. Imports errors, precision, files alone."""
