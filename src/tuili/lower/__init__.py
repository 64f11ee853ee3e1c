"""From a graph to a program: buffers, steps and where everything lives in memory."""
