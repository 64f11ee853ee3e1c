"""Passes: graph to graph, one file per idea; `pipeline.py` knows their order."""
