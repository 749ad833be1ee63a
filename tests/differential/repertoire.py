"""What agents may say, order and change: the words of the scripts."""

from __future__ import annotations

from typing import Any, Final

Item = dict[str, Any]

#: The simulated service runs any of them.
MODELS: Final = ("sim", "gpt-5.6", "gpt-5.6-sol")
#: Output of the service itself, and an item of a type nobody has heard of.
HOSTED: Final = (
    "web_search_call mcp_list_tools mcp_call commentary final_answer refusal compaction "
    "image_generation_call file_search_call code_interpreter_call future_call"
).split()
#: Calls that wait for the client.
CLIENT_CALLS: Final = (
    "computer_call local_shell_call shell_call apply_patch_call tool_search_call "
    "mcp_approval_request"
).split()
#: How a turn may go wrong.
FAILURES: Final = (
    "failed incomplete incomplete server_error rate_limit_exceeded server_is_overloaded "
    "invalid_prompt context_length_exceeded conflict unprocessable model_not_found "
    "previous_response_not_found made_up_code after_created:server_error "
    "after_created:rate_limit_exceeded after_created:invalid_prompt"
).split()


TEXTS: Final = (
    "hello",
    "Olá “wörld”",
    'a "quoted" \\ path',
    "line\nbreak",
    "雪 🙂",
    "use the tool",
)
ROLES: Final = ("user", "user", "user", "developer", "system")
_TOOLS: Final[tuple[Item, ...]] = (
    {
        "type": "function",
        "name": "look",
        "description": None,
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "stream_id": {"type": "string"},
                "sequence_number": {"type": "number"},
                "previous_response_id": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["stream_id", "sequence_number", "previous_response_id"],
        },
    },
    {"type": "custom", "name": "patch", "format": {"type": "text"}},
)
#: Members that stay as they are for a while; most of them must be equal for a delta.
FIELDS: Final[dict[str, tuple[Any, ...]]] = {
    "store": (True, False, False, None),
    "tools": (list(_TOOLS), list(_TOOLS[:1]), []),
    "instructions": ("Be brief.", "Be long.", None),
    "reasoning": ({"effort": "low"}, {"effort": "high", "summary": None}),
    "include": (["reasoning.encrypted_content"], []),
    "text": ({"verbosity": "low"},),
    "x_unheard_of": (1, 1.0, True, {"previous_response_id": "resp_x", "stream_id": "l01"}),
    "prompt_cache_key": ("cache-one", "cache-two"),
    "conversation": (None,),
    "background": (False, None),
}
#: Members that change from turn to turn without changing the context.
FREE_FIELDS: Final[dict[str, tuple[Any, ...]]] = {
    "stream": (True, True, True, True, False, None),
    "temperature": (0.5, 1, 1.0),
    "top_p": (0.9,),
    "max_output_tokens": (4, 500),
    "parallel_tool_calls": (True, False),
    "client_metadata": ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}),
    "stream_options": ({"include_obfuscation": False}, None),
    "service_tier": ("auto", "flex"),
    "previous_response_id": (None,),
}
