"""Which declared tool the model calls, and plausible arguments by the tool's own schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wsproxy.simulator.canonical import Item

#: Tools that run a command: every coding agent has one, and `echo hi` harms nothing.
_PREFERRED: Final = ("exec_command", "shell_command", "shell", "local_shell", "container.exec")
_PATCH: Final = "*** Begin Patch\n*** Add File: sim_{tag}.txt\n+hello\n*** End Patch\n"
_MAX_DEPTH: Final = 8
_COMMANDS: Final = frozenset({"cmd", "command", "commands", "script"})


@dataclass(frozen=True, slots=True)
class Tool:
    """One callable tool: a function with a schema, or a custom tool with free text."""

    name: str
    is_custom: bool
    schema: Mapping[str, Any]
    namespace: str | None = None


def callable_tools(declared: Sequence[Any]) -> list[Tool]:
    """Functions and custom tools among the declared ones, namespaces opened."""
    return list(_walk(declared, None))


def _walk(declared: Sequence[Any], namespace: str | None) -> Iterator[Tool]:
    for tool in declared:
        if not isinstance(tool, dict):
            continue
        kind, name = tool.get("type"), tool.get("name")
        if kind == "namespace" and isinstance(tool.get("tools"), list):
            yield from _walk(tool["tools"], str(name))
        elif kind in {"function", "custom"} and isinstance(name, str):
            schema = tool.get("parameters")
            known = schema if isinstance(schema, dict) else {}
            yield Tool(name, kind == "custom", known, namespace)


def choose_tool(tools: Sequence[Tool], turn: int, choice: object, *, custom: bool) -> Tool | None:
    """The tool of the `turn`-th call: the one asked for, else a shell, else one after another."""
    if isinstance(choice, dict) and isinstance(choice.get("name"), str):
        return next((tool for tool in tools if tool.name == choice["name"]), None)
    if custom:
        tools = [tool for tool in tools if tool.is_custom] or tools
        return tools[turn % len(tools)] if tools else None
    for name in _PREFERRED:
        for tool in tools:
            if tool.name == name and tool.namespace is None:
                return tool
    functions = [tool for tool in tools if not tool.is_custom] or tools
    return functions[turn % len(functions)] if functions else None


def custom_input(tool: Tool, tag: str) -> str:
    """Free text for a custom tool."""
    if "patch" in tool.name:
        return _PATCH.format(tag=tag)
    return f"text for {tool.name} {tag}"


def arguments_for(schema: Mapping[str, Any], tag: str, pad_bytes: int) -> Item:
    """Arguments that satisfy an object schema; `tag` makes calls tell apart."""
    filled = fill(schema, "", tag, schema, 0)
    found: Item = filled if isinstance(filled, dict) else {}
    if pad_bytes:
        name = next((name for name, value in found.items() if isinstance(value, str)), "pad")
        found[name] = str(found.get(name, "")).ljust(pad_bytes, "x")
    return found


def fill(
    schema: Mapping[str, Any], name: str, tag: str, root: Mapping[str, Any], depth: int
) -> Any:
    """A value for one JSON schema: constants and defaults first, then by type and name."""
    schema = _resolved(schema, root)
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        options = [each for each in schema.get(key, []) if each.get("type") != "null"]
        if options:
            return fill(options[0], name, tag, root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if kind == "object":
        return _filled_object(schema, tag, root, depth)
    if kind == "array":
        return _filled_array(schema, name, tag, root, depth)
    return _scalar(kind, name, tag, schema)


def _filled_object(
    schema: Mapping[str, Any], tag: str, root: Mapping[str, Any], depth: int
) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or depth > _MAX_DEPTH:
        return {}
    wanted = schema.get("required")
    names = wanted if isinstance(wanted, list) else list(properties)
    return {
        name: fill(properties[name], name, tag, root, depth + 1)
        for name in names
        if isinstance(properties.get(name), dict)
    }


def _filled_array(
    schema: Mapping[str, Any], name: str, tag: str, root: Mapping[str, Any], depth: int
) -> list[Any]:
    if name in _COMMANDS:
        return ["echo", "hi"]
    items = schema.get("items")
    if depth > _MAX_DEPTH or not isinstance(items, dict):
        return []
    count = max(1, int(schema.get("minItems", 1)))
    return [fill(items, name, tag, root, depth + 1) for _ in range(count)]


def _scalar(kind: object, name: str, tag: str, schema: Mapping[str, Any]) -> Any:
    if kind == "integer":
        return int(schema.get("minimum", 1))
    if kind == "number":
        return float(schema.get("minimum", 1.5))
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    if name in _COMMANDS:
        return "echo hi"
    if name in {"workdir", "cwd", "path", "directory"}:
        return "."
    return f"{name or 'text'} {tag}"


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    target = schema.get("$ref")
    if not isinstance(target, str) or not target.startswith("#/"):
        return schema
    found: Any = root
    for step in target[2:].split("/"):
        found = found.get(step, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}
