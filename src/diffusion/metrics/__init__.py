"""What generated images are worth. Imports the floors below: method, networks, data, figures."""
