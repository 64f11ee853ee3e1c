"""What decides which steps run: branches, loops, host steps, plug-ins, faults."""
