"""One file a mode of `python src MODE`, nothing else. Imports laboratory and the floors below; no mode another."""
