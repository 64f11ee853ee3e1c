"""What the wire says, without the wire: messages, datatypes, tensor bytes, statuses. No I/O here."""
