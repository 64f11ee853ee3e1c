"""What is counted: statistics per model version, latency histograms, their Prometheus text."""
