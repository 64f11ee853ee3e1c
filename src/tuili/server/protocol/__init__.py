"""What the wire says, without the wire: messages, datatypes, tensor bytes, statuses."""
