"""Runs compiled models: loads an artifact, owns its memory and threads."""
