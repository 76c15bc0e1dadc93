"""The mathematics: processes, denoisers, samplers, what is done with them. Imports errors, precision, files alone."""
