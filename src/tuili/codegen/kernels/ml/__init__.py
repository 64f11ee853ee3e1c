"""Kernels of classical machine learning: trees, pair coupling, distances."""
