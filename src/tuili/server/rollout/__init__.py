"""Roll-outs as policy: who gets which version, what was seen, what follows from it; no I/O."""
