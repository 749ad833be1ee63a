"""Orders of a request, and tools called by their own schema."""

from __future__ import annotations

from typing import Any

import pytest

from wsproxy.simulator.errors import ApiError
from wsproxy.simulator.script import Script, orders_in_text, read_script
from wsproxy.simulator.tools import Tool, arguments_for, callable_tools, choose_tool

ORDERS = {
    "nothing": ("gpt-5.6", {}, None, Script()),
    "model name": ("sim-tools-20", {}, None, Script(tool_calls=20)),
    "long model name": ("sim-tools-3-text-400", {}, None, Script(tool_calls=3, text_tokens=400)),
    "a model that only begins so": ("simple-model", {}, None, Script()),
    "marker over model": ("sim-tools-20", {"tool_calls": "2"}, None, Script(tool_calls=2)),
    "metadata over marker": ("m", {"parallel": "2"}, {"sim.parallel": "4"}, Script(parallel=4)),
    "other metadata": ("m", {}, {"canary": "x", "sim.nonsense": "y"}, Script()),
    "nonsense number": ("m", {}, {"sim.tool_calls": "many"}, Script()),
    "pace": ("m", {}, {"sim.tokens_per_s": "1.5"}, Script(tokens_per_s=1.5)),
    "switch": ("m", {}, {"sim.custom_tool": "1"}, Script(custom_tool=True)),
}


@pytest.mark.parametrize(
    ("model", "markers", "metadata", "script"), ORDERS.values(), ids=ORDERS.keys()
)
def test_orders_are_read_from_all_three_places(
    model: str, markers: dict[str, str], metadata: object, script: Script
) -> None:
    assert read_script(model, markers, metadata) == script


def test_a_marker_that_names_no_order_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ApiError, match="knows no order 'tool_call': choose from tool_calls, "):
        read_script("m", orders_in_text("[sim tool_call=5]"), None)

    assert read_script("m", orders_in_text("[sim card] [simple a=b]"), None) == Script()


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


FILLED = {
    "shell string": (schema(cmd={"type": "string"}), {"cmd": "echo hi"}),
    "shell list": (
        schema(command={"type": "array", "items": {"type": "string"}}),
        {"command": ["echo", "hi"]},
    ),
    "enum": (schema(unit={"type": "string", "enum": ["c", "f"]}), {"unit": "c"}),
    "default": (schema(n={"type": "integer", "default": 7}), {"n": 7}),
    "minimum": (schema(n={"type": "integer", "minimum": 3}), {"n": 3}),
    "nullable type": (schema(ok={"type": ["null", "boolean"]}), {"ok": False}),
    "any of": (schema(p={"anyOf": [{"type": "null"}, {"const": 4}]}), {"p": 4}),
    "nested": (schema(o=schema(path={"type": "string"})), {"o": {"path": "."}}),
    "reference": (
        {**schema(o={"$ref": "#/$defs/O"}), "$defs": {"O": schema(a={"type": "number"})}},
        {"o": {"a": 1.5}},
    ),
    "optional left out": (
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": []},
        {},
    ),
    "free text": (schema(city={"type": "string"}), {"city": "city tag"}),
    "no schema": ({}, {}),
}


@pytest.mark.parametrize(("given", "filled"), FILLED.values(), ids=FILLED.keys())
def test_arguments_satisfy_the_tools_own_schema(
    given: dict[str, Any], filled: dict[str, Any]
) -> None:
    assert arguments_for(given, "tag", 0) == filled


def test_arguments_can_be_made_as_long_as_wanted() -> None:
    filled = arguments_for(schema(city={"type": "string"}), "tag", 5000)

    assert len(filled["city"]) == 5000


def test_a_shell_is_preferred_and_a_forced_choice_wins() -> None:
    tools = [Tool("plan", False, {}), Tool("shell", False, {}), Tool("patch", True, {})]

    chosen = [
        choose_tool(tools, 0, None, custom=False),
        choose_tool(tools, 0, {"type": "function", "name": "plan"}, custom=False),
        choose_tool(tools, 0, None, custom=True),
        choose_tool([], 0, None, custom=False),
    ]

    assert [tool and tool.name for tool in chosen] == ["shell", "plan", "patch", None]


def test_namespaces_are_opened_and_hosted_tools_left_out() -> None:
    inner = {"type": "function", "name": "f"}
    declared = [{"type": "web_search"}, {"type": "namespace", "name": "n", "tools": [inner]}]

    assert callable_tools(declared) == [Tool("f", False, {}, "n")]
