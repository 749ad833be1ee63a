"""The canary (faults.md C-01): a secret and a text in every test, and where neither may appear.

Rules of this file
------------------
1. Stages of tests use `SECRET` as the key and put `TEXT` into what users say.
2. Whatever a proxy leaves behind is given to `WATCH.look`; a test that leaks fails at its end.
3. What children and commands print and what our errors say is heard by itself
   (`tests/printed.py`), the log is looked at line by line (`tests/logged.py`), and so is every
   file below `tmp_path`, but for those that the test itself planted (`WATCH.plant`).
4. An escaped, quoted or wrapped canary is one too: only its letters and digits are compared.

What has none of its own:
- what knows neither keys nor texts: lanes, alarms, deadlines, tables, records out of nothing;
- the core below the driver is told no key, only a digest of it, as in the product;
- the simulator gets the keys: the texts it is told it keeps and shows, that is what it is for.
"""

from __future__ import annotations

import gc
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    from wsproxy.daemon import Daemon  # every test imports this file, and few need a daemon

_SECRET_MARK: Final = b"cnry7secret"
_TEXT_MARK: Final = b"cnry7text"
#: Shaped as API keys are. `secret("two")` is another one.
SECRET: Final = "sk-cnry7secret-one"
#: A quote, a line break and a letter beyond ASCII: JSON writes them in several ways.
TEXT: Final = 'cnry7 "te\nxt\u00eb"'

#: The same as JSON.
SAID: Final = json.dumps(TEXT).encode()

#: Letters written as numbers; every other escape stands for what is not compared.
_LETTER: Final = re.compile(rb"(?:\\+(?:u00|x)|%)([2-7][0-9a-fA-F])")
_ESCAPE: Final = re.compile(rb"\\+(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[abfnrtv])|%[0-9a-fA-F]{2}")
_LETTERS: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
_LOWER: Final = bytes(range(256)).lower()
_DROPPED: Final = bytes(code for code in range(256) if _LOWER[code] not in _LETTERS)
#: Lines that hold texts where a test asked for them (`keeps_texts`).
_CONTENT: Final = b'{"kind":"content"'
#: What a running proxy tells whoever asks, each at `/_wsproxy/NAME`.
PAGES: Final = ("healthz", "readyz", "metrics", "pools")
_PAGE_PATIENCE_S: Final = 5.0


def secret(name: str) -> str:
    """A key of its own for each name."""
    return f"sk-cnry7secret-{name}"


class Watch:
    """What one test has leaked so far."""

    def __init__(self) -> None:
        self.begin()

    def begin(self, *, keeps_texts: bool = False, prints_texts: bool = False) -> None:
        """A new test; what users said may be in its journals or on its screens, a secret never."""
        self.leaks: list[str] = []
        self.keeps_texts, self.prints_texts = keeps_texts, prints_texts
        self._printed: defaultdict[str, bytearray] = defaultdict(bytearray)
        self._planted: set[Path] = set()

    def plant(self, path: Path, content: str) -> Path:
        """Write a file of the test's own, a token for instance: it is not looked at."""
        path.write_text(content, encoding="utf-8")
        self._planted.add(path)
        return path

    def look(self, where: str, content: str | bytes, *, may_have_text: bool = False) -> None:
        """Note a canary in what a proxy left behind."""
        letters = _letters(content)
        if _SECRET_MARK in letters:
            self._note(f"the secret is in {where}")
        if _TEXT_MARK in letters and not may_have_text:
            self._note(f"the text is in {where}")

    def hear(self, where: str, printed: str | bytes) -> None:
        """A piece of what was printed: a canary may lie across two, so they are kept till then."""
        self._printed[where] += printed.encode() if isinstance(printed, str) else printed

    def look_at_printed(self) -> None:
        """Look at all that was printed since the last look."""
        for where, printed in self._printed.items():
            self.look(where, bytes(printed), may_have_text=self.prints_texts)
        self._printed.clear()

    def _note(self, leak: str) -> None:
        if leak not in self.leaks:
            self.leaks.append(leak)

    def look_at_files(self, paths: Iterable[Path]) -> None:
        """Look into files, journals of traces above all."""
        for path in paths:
            if path in self._planted:
                continue
            content = path.read_bytes()
            self.look(path.name, path.name)
            if self.keeps_texts:
                kept = [line for line in content.splitlines() if line.startswith(_CONTENT)]
                content = content if not kept else _without(content, kept)
                self.look(path.name, b"\n".join(kept), may_have_text=True)
            self.look(path.name, content)

    def look_at_objects(self) -> None:
        """Look at the `repr` of everything of wsproxy's that is alive."""
        alive = [found for found in gc.get_objects() if is_ours(type(found))]
        shown = {(type(found).__name__, _repr(found)) for found in alive}
        if _has_canary("\n".join(text for _, text in shown)):  # hardly ever: one look for all
            for name, text in shown:
                self.look(f"the repr of a {name}", text)

    async def look_at_proxy(self, proxy: Daemon, client: aiohttp.ClientSession) -> None:
        """Look at a proxy's own pages, if it still answers, and at all its objects."""
        assert proxy.front is not None
        token = proxy.settings.token_file
        behind = "" if token is None else f"/t/{token.read_text()}"
        with suppress(aiohttp.ClientError, TimeoutError):  # it has been stopped
            await self._look_at_pages(f"http://{proxy.front.addresses[0]}{behind}", client)
        self.look_at_objects()

    async def look_at_child(self, base_url: str) -> None:
        """Look at the pages of a proxy in another process, which must be running."""
        async with aiohttp.ClientSession() as client:
            await self._look_at_pages(base_url.removesuffix("/v1"), client)

    async def _look_at_pages(self, origin: str, client: aiohttp.ClientSession) -> None:
        limit = aiohttp.ClientTimeout(total=_PAGE_PATIENCE_S)
        for name in PAGES:
            async with client.get(f"{origin}/_wsproxy/{name}", timeout=limit) as answer:
                assert answer.status in (200, 503), f"{name} is not shown: {answer.status}"
                self.look(f"/_wsproxy/{name}", await answer.read())


@cache
def is_ours(type_: type) -> bool:
    """Whether a class is the proxy's; of the simulator it is known that it keeps everything."""
    module = str(type_.__module__)
    return module.startswith("wsproxy.") and not module.startswith("wsproxy.simulator")


def _repr(found: object) -> str:
    try:
        return repr(found)
    except Exception:  # aiohttp's answers have none before they are sent
        return ""


def _without(content: bytes, lines: Iterable[bytes]) -> bytes:
    left_out = frozenset(lines)
    return b"\n".join(line for line in content.splitlines() if line not in left_out)


def _has_canary(content: str) -> bool:
    letters = _letters(content)
    return _SECRET_MARK in letters or _TEXT_MARK in letters


def _letters(content: str | bytes) -> bytes:
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
    if b"\\" in raw or b"%" in raw:
        raw = _ESCAPE.sub(b"", _LETTER.sub(_letter, raw))
    return raw.translate(_LOWER, _DROPPED)


def _letter(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 16)])


#: The one of this process: tests run one after another.
WATCH: Final = Watch()
