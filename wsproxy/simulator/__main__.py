"""`python -m wsproxy.simulator`: the same as `wsproxy simulate`."""

from wsproxy.simulator.command import simulate

simulate(prog_name="wsproxy simulate")
