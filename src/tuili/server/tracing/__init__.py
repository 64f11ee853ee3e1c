"""Traces of single requests: which are taken, what is in them, and where they go."""
