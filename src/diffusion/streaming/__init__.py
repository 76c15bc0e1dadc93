"""Data sets over WebSockets and in shards, as sources of training's batches. Imports data, files and errors alone."""
