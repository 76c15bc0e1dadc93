"""What a Config describes: its presets, how it is built, saved and loaded. Imports method, networks, data, figures."""
