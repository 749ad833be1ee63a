"""One `response.create`, whether it came as a frame or as an HTTP body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from wsproxy.simulator.canonical import Item, canonical, digest, strict_json
from wsproxy.simulator.errors import ApiError, invalid_json, unknown_parameter

#: Members that steer the transport or the cache and never reach the model.
TRANSPORT: Final = frozenset(
    {
        "type",
        "stream",
        "stream_id",
        "stream_options",
        "input",
        "previous_response_id",
        "background",
        "background_options",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "client_metadata",
        "conversation",
    }
)
#: Members of `response.create` in openai-python 3.54, and what Codex adds (protocol.md §2.2).
KNOWN: Final = TRANSPORT | frozenset(
    re.findall(
        r"\w+",
        "access_programs context_management frequency_penalty generate image include instructions "
        "max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls "
        "presence_penalty prompt reasoning safety_identifier service_tier store temperature text "
        "tool_choice tools top_logprobs top_p truncation user",
    )
)
#: Members that only exist in a frame.
FRAME_ONLY: Final = ("type", "stream_id", "generate")
_SOURCES: Final = ("previous_response_id", "conversation", "prompt")
#: The prompt cache depends on these and on the items (tau's measurement, protocol.md §4).
_CACHED_WITH: Final = ("model", "instructions", "tools", "reasoning")
_BYTES_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Request:
    """A validated request; `fields` is the body as it came."""

    fields: Mapping[str, Any]
    model: str
    items: tuple[Item, ...]
    previous_response_id: str | None
    conversation: str | None
    store: bool
    generate: bool
    background: bool
    stream: bool
    obfuscate: bool
    canary: str
    digest: bytes  # over everything but the items that the reply depends on
    cache_key: bytes  # over what the prompt cache depends on beside the items
    preamble_tokens: int  # of instructions and tools
    size: int  # bytes as received, 0 if unknown


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`, or the service's refusal."""
    try:
        found = strict_json(raw.decode("utf-8"))
    except ValueError:
        raise invalid_json() from None
    if not isinstance(found, dict):
        raise invalid_json()
    return found


def read_request(fields: Mapping[str, Any], size: int, *, refuse_unknown: bool) -> Request:
    """Validate the members of one create. Raises `ApiError`."""
    if refuse_unknown:
        for name in fields:
            if name not in KNOWN:
                raise unknown_parameter(name)
    model = _typed(fields, "model", str)
    if not model:
        raise ApiError("you must provide a model parameter", code="missing_required_parameter")
    if model.startswith("missing-"):
        raise ApiError(
            f"The requested model '{model}' does not exist.",
            status=404,
            code="model_not_found",
            param="model",
        )
    previous = _typed(fields, "previous_response_id", str)
    conversation = _conversation(fields)
    if previous is not None and conversation is not None:
        raise ApiError(
            "Mutually exclusive parameters. Ensure you are only providing one of: "
            "'previous_response_id' or 'conversation'.",
            code="mutually_exclusive_parameters",
        )
    metadata = _typed(fields, "metadata", dict) or {}
    _check_lists(fields)
    options = _typed(fields, "stream_options", dict) or {}
    obfuscate = options.get("include_obfuscation") is not False
    return Request(
        fields=fields,
        model=model,
        items=_input_items(fields),
        previous_response_id=previous,
        conversation=conversation,
        store=_typed(fields, "store", bool) is not False,
        generate=_typed(fields, "generate", bool) is not False,
        background=_typed(fields, "background", bool) is True,
        stream=_typed(fields, "stream", bool) is True,
        obfuscate=obfuscate,
        canary=str(metadata.get("canary", "")),
        digest=_parameters_digest(fields, obfuscate),
        cache_key=digest(canonical([fields.get(name) for name in _CACHED_WITH])),
        preamble_tokens=_preamble_tokens(fields),
        size=size,
    )


def _parameters_digest(fields: Mapping[str, Any], obfuscate: bool) -> bytes:
    spoken = {name: value for name, value in fields.items() if name not in TRANSPORT}
    return digest(canonical(spoken), b"obfuscated" if obfuscate else b"plain")


def _preamble_tokens(fields: Mapping[str, Any]) -> int:
    size = sum(len(canonical(fields[name])) for name in ("instructions", "tools") if name in fields)
    return size // _BYTES_PER_TOKEN


def _typed(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    value = fields.get(name)
    if value is None or isinstance(value, kind):
        return value
    raise ApiError(
        f"Invalid type for '{name}': expected {_NAMES[kind]}.", code="invalid_type", param=name
    )


_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    dict: "an object",
    bool: "a boolean",
    list: "an array",
}


def _check_lists(fields: Mapping[str, Any]) -> None:
    for name in ("tools", "include"):
        _typed(fields, name, list)
    for index, tool in enumerate(fields.get("tools") or []):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            where = f"tools[{index}].type"
            raise ApiError(
                f"Missing required parameter: '{where}'.",
                code="missing_required_parameter",
                param=where,
            )


def _conversation(fields: Mapping[str, Any]) -> str | None:
    value = fields.get("conversation")
    if isinstance(value, dict):
        value = value.get("id")
    if value is None or isinstance(value, str):
        return value
    raise ApiError("Invalid type for 'conversation'.", code="invalid_type", param="conversation")


def _input_items(fields: Mapping[str, Any]) -> tuple[Item, ...]:
    value = fields.get("input")
    if isinstance(value, str):
        return ({"type": "message", "role": "user", "content": value},)
    if isinstance(value, list):
        if value or fields.get("generate") is False or _has_source(fields):
            return tuple(value)
    elif value is not None:
        raise ApiError(
            "Invalid type for 'input': expected one of a string or array of input items.",
            code="invalid_type",
            param="input",
        )
    elif _has_source(fields):
        return ()
    raise ApiError(
        "Missing required parameter: one of 'input' or 'previous_response_id' or 'prompt' or "
        "'conversation' must be provided.",
        code="missing_required_parameter",
        param="input",
    )


def _has_source(fields: Mapping[str, Any]) -> bool:
    return any(fields.get(name) is not None for name in _SOURCES)
