"""Operators that read between elements: resize, grid sample, regions."""
