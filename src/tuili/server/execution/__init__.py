"""A batch on its way to a model: in this process, on a thread, or in a host."""
