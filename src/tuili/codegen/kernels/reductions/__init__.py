"""Operators that walk along axes: sums, norms, softmax, searches."""
