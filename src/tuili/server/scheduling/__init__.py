"""Who waits, who goes together, who is turned away: pure policies that are told the time."""
