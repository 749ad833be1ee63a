"""`wsproxy demo`: what it saves, shown on this machine."""

from __future__ import annotations

import json
import signal
from importlib.util import find_spec
from types import FrameType
from typing import Final

import click

#: The simulator keeps every event of a loop for the comparison.
MAX_CALLS: Final = 500
#: What a shell adds to a signal's number to make it an exit code.
SIGNAL_BASE: Final = 128


@click.command()
@click.option(
    "--calls",
    type=click.IntRange(1, MAX_CALLS),
    default=20,
    show_default=True,
    help="Tool calls of the agent's loop.",
)
@click.option("--plain", is_flag=True, help="Leave the simulated service free of all costs.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def demo(calls: int, plain: bool, as_json: bool) -> int:
    """Run an agent loop directly and through wsproxy, and compare. No key, no network.

    Starts the simulated API and the proxy as processes of their own on free ports, lets
    openai-python do the same tool loop on both roads, and prints what each took. Ends with exit
    code 0 if every answer was the same, 1 if not, 130 after Ctrl-C, 143 after SIGTERM.
    """
    if find_spec("openai") is None:  # an agent of our own would show nothing about real ones
        raise click.UsageError(
            "the agent of the demo is openai-python, which is not installed\npip install openai"
        )
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(calls, plain, as_json)
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        click.echo("wsproxy: interrupted", err=True)
        return SIGNAL_BASE + int(number)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)  # so that SIGTERM, too, ends the children first


def _run(calls: int, plain: bool, as_json: bool) -> int:
    from rich.console import Console

    from wsproxy.demo import costs, table
    from wsproxy.demo.story import StoryError, roads, tell

    aside, out = Console(stderr=True, highlight=False), Console(highlight=False)
    chosen = costs.FREE if plain else costs.REAL
    table.print_opening(aside if as_json else out, calls, chosen)
    try:
        with table.progress_on(aside, roads(chosen), calls + 1) as on_turn:
            report = tell(calls, chosen, on_turn)
    except StoryError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        table.print_report(out, report)
    return 0 if report.are_answers_identical else 1
