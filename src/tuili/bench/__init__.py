"""Engines side by side on the same model, the same inputs and the same threads."""
