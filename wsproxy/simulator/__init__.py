"""A Responses API of our own: the upstream that "direct" and "through the proxy" are compared on.

Strict rules by default, a reply that is a pure function of what the model sees, costs and faults
on order. It shares no code with the rest of wsproxy, or it could not be its judge.
"""

from wsproxy.simulator.canonical import meaning
from wsproxy.simulator.faults import Fault, FaultError, parse_fault
from wsproxy.simulator.rules import Rules
from wsproxy.simulator.server import Simulator

__all__ = ["Fault", "FaultError", "Rules", "Simulator", "meaning", "parse_fault"]
