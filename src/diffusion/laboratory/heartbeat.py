"""How the workers of a sweep know that another one died."""

BEAT, GRACE = 10, 60  # seconds between two signs of life of a worker; silent for longer, it is taken for dead
