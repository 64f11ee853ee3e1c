"""Remote repositories: s3, gs, az, http(s) and what else fsspec reads, mirrored into a cache."""
