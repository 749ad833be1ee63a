"""An agent with no SDK: so many turns of one conversation, then the exit code that is asked for.

It ends with what the pages of its proxy told it.

python child.py TURNS EXIT_CODE
"""

import json
import os
import sys
import urllib.request

base_url = os.environ["OPENAI_BASE_URL"]
items = []
for number in range(int(sys.argv[1])):
    items.append(
        {"type": "message", "role": "user", "content": f"turn {number} {os.environ['SAYS']}"}
    )
    body = json.dumps({"model": "sim", "store": False, "input": items}).encode()
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}",
    }
    request = urllib.request.Request(f"{base_url}/responses", body, headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        items += json.load(answer)["output"]
pages = []
for name in os.environ["PAGES"].split():
    url = f"{base_url.removesuffix('/v1')}/_wsproxy/{name}"
    with urllib.request.urlopen(url, timeout=20) as page:
        pages.append(page.read().decode())
print(json.dumps({"base_url": base_url, "is_terminal": sys.stdin.isatty(), "pages": pages}))
sys.exit(int(sys.argv[2]))
