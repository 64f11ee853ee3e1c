"""Requests from message queues: a consumer over Redis Streams or NATS JetStream."""
