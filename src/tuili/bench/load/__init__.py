"""Load on a server: requests as wire bytes, an event loop of its own, and what came of them."""
