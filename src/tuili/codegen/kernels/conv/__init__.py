"""Convolutions and pools: direct, Winograd, transposed, depthwise, in one register tile."""
