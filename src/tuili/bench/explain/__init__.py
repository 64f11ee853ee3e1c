"""Where a model's time goes: per kernel call, beside what the machine could do."""
