"""`python -m wsproxy` is the command `wsproxy`."""

from __future__ import annotations

import sys

from wsproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
