"""Other model servers beside which `benchmarks.server` runs tuili: their installation and start."""
