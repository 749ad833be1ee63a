"""Writes the pages that follow from the table of settings.

python -m wsproxy.config --toml > config/wsproxy.toml
python -m wsproxy.config --markdown > docs/settings.md
"""

from __future__ import annotations

import sys

from wsproxy.config.pages import markdown_page, toml_page

PAGES = {"--toml": toml_page, "--markdown": markdown_page}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in PAGES:
        print("usage: python -m wsproxy.config --toml | --markdown", file=sys.stderr)
        return 2
    sys.stdout.buffer.write(PAGES[arguments[0]]().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
