"""Roll-outs as action: the journal, the split of traffic, and what carries decisions out."""
