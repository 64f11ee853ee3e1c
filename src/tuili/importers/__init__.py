"""Importers: outside model formats to graphs; the only place that knows those formats."""
