"""Registry: the record of a published version, the ledger of its model, and their checks."""
