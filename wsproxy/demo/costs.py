"""What the simulated service is made to cost, as the simulator's flags and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Costs:
    """The model of network and service. Zero is free."""

    handshake_s: float = 0.0
    round_trip_s: float = 0.0
    uplink_bytes_per_s: float = 0.0
    uncached_token_s: float = 0.0
    tokens_per_s: float = 0.0

    @property
    def is_free(self) -> bool:
        """Whether nothing costs anything."""
        return self == FREE

    def flags(self) -> list[str]:
        """Options of `wsproxy simulate`."""
        return [
            f"--handshake-s={self.handshake_s}",
            f"--round-trip-s={self.round_trip_s}",
            f"--uplink-bytes-per-s={self.uplink_bytes_per_s}",
            f"--prefill-s-per-token={self.uncached_token_s}",
            f"--tokens-per-s={self.tokens_per_s}",
        ]

    def in_words(self) -> str:
        """The model on one line, for the reader of a figure."""
        if self.is_free:
            return "none: loopback and an instant model"
        return (
            f"TCP and TLS {1e3 * self.handshake_s:.0f} ms a connection, "
            f"round trip {1e3 * self.round_trip_s:.0f} ms, "
            f"uplink {8e-6 * self.uplink_bytes_per_s:.0f} Mbit/s, "
            f"{1e6 * self.uncached_token_s:.0f} µs a context token not cached, "
            f"{self.tokens_per_s:,.0f} tokens/s"
        )


FREE: Final = Costs()
#: Assumptions, not measurements: a home uplink, an API 40 ms away (TCP and TLS 1.3 take two round
#: trips), a fast model, and a service that reads 100,000 new tokens a second.
REAL: Final = Costs(
    handshake_s=0.080,
    round_trip_s=0.040,
    uplink_bytes_per_s=2_500_000,
    uncached_token_s=10e-6,
    tokens_per_s=1_000,
)
