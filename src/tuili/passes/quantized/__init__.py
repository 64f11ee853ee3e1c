"""Graphs of codes: products of quantised tensors named, scales absorbed, codes kept as codes."""
