"""A core that a test has made is looked at for the canary when the test is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.canary import WATCH
from tests.core.stage import LAST


@pytest.fixture(autouse=True)
def _looks_at_the_core() -> Iterator[None]:
    yield
    if LAST:
        WATCH.look_at_objects()
        LAST.clear()
