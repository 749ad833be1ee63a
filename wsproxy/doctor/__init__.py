"""`wsproxy doctor`: is everything there that the proxy needs, and if not, what to do."""
