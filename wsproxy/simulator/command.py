"""`wsproxy simulate`: the simulated service as a program. Every rule is a flag."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import signal
from collections.abc import Callable
from typing import Any, Final, get_args, get_type_hints

import click

from wsproxy.simulator.faults import FaultError, parse_fault
from wsproxy.simulator.rules import Rules
from wsproxy.simulator.server import Simulator

_DEFAULT_LISTEN: Final = "127.0.0.1:8089"


def _rule_options(command: Callable[..., None]) -> Callable[..., None]:
    """One flag a rule, with its default shown."""
    hints = get_type_hints(Rules)
    for rule in reversed(dataclasses.fields(Rules)):
        command = _rule_option(rule, hints[rule.name])(command)
    return command


def _rule_option(rule: dataclasses.Field[Any], hint: Any) -> Callable[..., Any]:
    flag = "--" + rule.name.replace("_", "-")
    shown: dict[str, Any] = {
        "default": rule.default,
        "show_default": True,
        "help": rule.metadata["help"],
    }
    if hint is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", rule.name, **shown)
    if hint in {int, float, str}:
        return click.option(flag, rule.name, type=hint, **shown)
    choices = [each for each in get_args(hint) if isinstance(each, str)]
    if choices:
        return click.option(flag, rule.name, type=click.Choice(choices), **shown)
    return click.option(flag, rule.name, multiple=True, **shown)


@click.command()
@click.option(
    "--listen",
    default=_DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    help="Address to serve on; port 0 takes a free one.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="WHERE:WHAT[=ARGUMENT][:COUNT]",
    help="A fault on order, see above; may repeat; COUNT times (1), -1: always.",
)
@_rule_options
def simulate(listen: str, faults: tuple[str, ...], **rules: Any) -> None:
    """Serve the simulated Responses API over HTTP and WebSocket until SIGINT or SIGTERM.

    What the model does is ordered by `[sim NAME=VALUE …]` in a user's message, such as
    `[sim tool_calls=5]`. Faults of the service are ordered with --fault WHERE:WHAT, such as
    `--fault before_first_event:close=1011:2` or `--fault mid_stream:reset`.

    WHERE is `handshake`, `before_first_event`, `mid_stream` or `after_terminal`.

    WHAT at a handshake is `status=NUMBER`, `hang`, `reset` or `eof`. At the other places it is
    `reset`, `eof`, `close=CODE`, `silence`, `freeze`, `cut`, `garbage=KIND`, `wrong_lane`,
    `no_lane`, `unknown_event`, `late_event`, `sequence_gap`, `error=CODE`,
    `connection_error=CODE` or `big=BYTES`. Those written with = need it. docs/simulator.md tells
    what each of them does, and every order of `[sim …]`.
    """
    host, port = _address(listen)
    try:
        orders = [parse_fault(fault) for fault in faults]
    except FaultError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from None
    simulator = Simulator(Rules(**rules), host=host, port=port, faults=orders)
    asyncio.run(_serve(simulator, listen))


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise click.BadParameter(f"{listen!r} is not HOST:PORT", param_hint="--listen")
    return host, int(port)


async def _serve(simulator: Simulator, listen: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # the loops of Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    try:
        await simulator.start()
    except OSError as error:
        raise click.UsageError(_cannot_listen(simulator, listen, error)) from None
    click.echo(f"simulated Responses API at {simulator.base_url}")
    await stop.wait()
    await simulator.stop()


def _cannot_listen(simulator: Simulator, listen: str, error: OSError) -> str:
    """What is wrong, and on a second line what to do."""
    if error.errno != errno.EADDRINUSE:
        return f"cannot listen on {listen}: {error.strerror or error}"
    host = listen.rpartition(":")[0]
    return (
        f"cannot listen on {listen}: it is in use, perhaps by another simulator\n"
        f"stop that one, or choose another port: --listen {host}:{simulator.port + 1}"
    )
