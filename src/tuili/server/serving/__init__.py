"""One model under requests: admitted, queued, batched, run, answered."""
