"""Data sets over WebSockets: protocols, a server, clients that training draws from. Imports data and errors alone."""
