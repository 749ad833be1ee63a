"""`wsproxy simulate`: the simulated Responses API alone, as a server."""

from wsproxy.simulator.command import simulate

__all__ = ["simulate"]
