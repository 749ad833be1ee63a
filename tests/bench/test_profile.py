"""Whose code a sample was taken in."""

from __future__ import annotations

import pytest

from tests.bench.profile import INTERPRETER, KERNEL, divided, running

OURS = "Driver.run (wsproxy/driver.py:12)"


@pytest.mark.parametrize(
    ("frames", "owner"),
    [
        ([OURS], "wsproxy/driver.py"),
        ([OURS, "decode (aiohttp/web.py:3)"], "aiohttp"),
        ([OURS, "decode (msgspec/_core.so)"], "msgspec"),
        ([OURS, "uv__read (stream.c:1154)"], "uvloop"),
        ([OURS, "Loop__run (loop.c:20313)"], "uvloop"),
        ([OURS, "dict_get (dictobject.c:7)"], INTERPRETER),
        ([OURS, "_PyObject_Malloc (libpython3.11.so.1.0)"], INTERPRETER),
        ([OURS, "loads (json/decoder.py:3)"], "standard library"),
        ([OURS, "get (queue.py:3)"], "standard library"),
        ([OURS, "0x7f5e9716cf23 (libc.so.6)"], "wsproxy/driver.py"),
        ([OURS, "uv__read (stream.c:1154)", "read (libc.so.6)"], None),
        ([OURS, "PyThread_acquire_lock_timed (libpython3.11.so.1.0)", "0x7f (libc.so.6)"], None),
    ],
)
def test_a_sample_counts_for_the_code_that_was_running(
    frames: list[str], owner: str | None
) -> None:
    assert running(frames) == owner


def test_the_kernel_has_its_own_share_and_the_rest_is_divided() -> None:
    asleep = "run (wsproxy/driver.py:1);read (libc.so.6) 90"
    shares = divided([asleep, f"{OURS} 3", f"{OURS};dict_get (dictobject.c:7) 1"], 0.6)
    assert shares == {
        KERNEL: 0.6,
        "wsproxy/driver.py": pytest.approx(0.3),
        INTERPRETER: pytest.approx(0.1),
    }
