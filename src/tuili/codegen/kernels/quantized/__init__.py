"""Convolutions and products of 8-bit codes, exact to the bit."""
