"""Products and convolutions in bfloat16, for models compiled with that precision."""
