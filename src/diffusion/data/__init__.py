"""Data sets as tensors, their files, and the order in which they are seen. Imports errors, precision, files alone."""
