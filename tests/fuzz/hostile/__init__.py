"""Makers of hostile files: each takes a random generator and a folder, and returns a command."""
