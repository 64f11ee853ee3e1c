"""Operators that move, pick or make elements and calculate none."""
