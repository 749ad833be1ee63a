"""`wsproxy run`: a proxy for one command, in a thread of the same process."""
