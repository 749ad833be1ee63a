"""A small agent with openai-python: two tools, a loop, and nothing about wsproxy in it.

OPENAI_API_KEY=… OPENAI_BASE_URL=http://127.0.0.1:8787/v1 python docs/examples/agent.py "…"
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from openai import OpenAI

MODEL: Final = "gpt-5.6"


def list_folder() -> str:
    return "\n".join(sorted(path.name for path in Path.cwd().iterdir()))


def read_clock() -> str:
    return datetime.now(UTC).isoformat()


TOOLS: Final[dict[str, Callable[[], str]]] = {
    "list_folder": list_folder,
    "read_clock": read_clock,
}
DECLARED: Final[list[Any]] = [
    {
        "type": "function",
        "name": name,
        "description": name.replace("_", " ").capitalize() + ".",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        "strict": False,
    }
    for name in TOOLS
]


def answer(client: OpenAI, question: str) -> str:
    """Let the model call tools until it has an answer."""
    items: list[Any] = [{"role": "user", "content": question}]
    while True:
        response = client.responses.create(
            model=MODEL,
            input=items,
            tools=DECLARED,
            store=False,
            include=["reasoning.encrypted_content"],
        )
        items += response.output
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return response.output_text
        for call in calls:
            print(f"{call.name}({json.loads(call.arguments)})", file=sys.stderr)
            output = TOOLS[call.name]()
            answered = {"type": "function_call_output", "call_id": call.call_id}
            items.append({**answered, "output": output})


if __name__ == "__main__":
    print(answer(OpenAI(), " ".join(sys.argv[1:]) or "What is in this folder?"))
