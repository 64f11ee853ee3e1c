"""Attention: every operator and spelling of it becomes the one core form that kernels compute."""
