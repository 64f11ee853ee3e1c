"""Measuring which plan of each kernel is fastest on this machine."""
