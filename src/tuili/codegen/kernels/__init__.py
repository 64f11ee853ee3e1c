"""Kernel families: one file per idea, each prints specialised C."""
