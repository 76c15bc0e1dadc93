"""A run kept alive: its folder, budget, scores and command line. Imports training, api and the floors below."""
