"""Matrix products: packed panels of floats, half floats and codes of a few bits."""
