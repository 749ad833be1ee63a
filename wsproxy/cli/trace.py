"""`wsproxy trace`: sessions and turns as they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import msgspec

from wsproxy.config import load, trace_folder
from wsproxy.trace.reader import NoTracesError, Session, TraceError, Traces

#: Sessions of a list where `--all` is not given.
SHOWN_SESSIONS: Final = 20
_LISTS_TURNS: Final = "`wsproxy trace show` lists the turns of a session"


@click.group()
def trace() -> None:
    """Show sessions and turns as they were.

    Reads the trace folder of the daemon (setting `trace_dir`), or a file that `share` wrote. Where
    the output is no terminal, it is plain text with all columns; `--json` gives everything to
    programs. Any beginning of an id that fits only one will do.
    """


def reading(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command its folder, and turn what cannot be shown into exit code 1."""

    @click.option("--dir", "folder", metavar="DIR|FILE", type=click.Path(path_type=Path),
                  help="Trace folder, or a shared file; default: as the settings say.")  # fmt: skip
    @click.option("--config", "config_file", metavar="FILE", type=click.Path(path_type=Path),
                  help="TOML file of settings; WSPROXY_CONFIG names it too.")  # fmt: skip
    @wraps(command)
    def with_folder(folder: Path | None, config_file: Path | None, **options: Any) -> int | None:
        named = folder or trace_folder(load(file=config_file).settings)
        try:
            if folder is not None and not folder.exists():
                raise TraceError(f"{folder} does not exist", _CHECK_DIR)
            return command(named, **options)
        except NoTracesError as error:
            _fail(error.problem, error.advice if folder is None else _CHECK_DIR)
        except TraceError as error:
            _fail(error.problem, error.advice)

    return with_folder


_CHECK_DIR: Final = (
    "check --dir: it takes a trace folder, or a file that `wsproxy trace share` wrote"
)


def _fail(problem: str, advice: str) -> NoReturn:
    raise click.ClickException("\n".join(filter(None, (problem, advice)))) from None


as_json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
which_argument = click.argument("which", metavar="[SESSION|TURN]...", nargs=-1)


@trace.command("list")
@click.option("--all", "shows_all", is_flag=True, help=f"Not only the last {SHOWN_SESSIONS}.")
@as_json_option
@reading
def list_(folder: Path, shows_all: bool, as_json: bool) -> None:
    """List the sessions, newest first."""
    from wsproxy.terminal.table import console as terminal
    from wsproxy.trace import lists
    from wsproxy.trace.report import overview

    traces = _read(folder)
    sessions = traces.newest_first()
    shown = sessions if shows_all or as_json else sessions[:SHOWN_SESSIONS]
    if as_json:
        _print_json([overview(session) for session in shown])
        return
    console = terminal()
    console.print(lists.session_list(shown, console.width))
    if len(shown) < len(sessions):
        click.echo(f"\n{len(sessions) - len(shown)} older sessions: --all")


@trace.command()
@click.argument("which", metavar="[SESSION|TURN]", required=False)
@click.option("--bodies", "has_bodies", is_flag=True,
              help="The texts of a turn, if trace_bodies was on.")  # fmt: skip
@as_json_option
@reading
def show(folder: Path, which: str | None, has_bodies: bool, as_json: bool) -> None:
    """Show a session's turns as a waterfall, or a turn's phases.

    Without an id: the latest session.
    """
    from wsproxy.terminal.table import console as terminal
    from wsproxy.trace import turn_picture, waterfall
    from wsproxy.trace.reader import find, find_turn, texts_of
    from wsproxy.trace.report import session_told, turn_told

    if has_bodies and which is None:
        raise click.UsageError(f"--bodies needs the id of a turn\n{_LISTS_TURNS}")
    traces = _read(folder)
    console = terminal()
    if has_bodies:
        turn = find_turn(traces, which or "")
        texts = texts_of(folder, turn)
        if as_json:
            _print_json(turn_told(traces, turn, texts))
        else:
            console.print(turn_picture.texts(texts))
        return
    found = traces.latest if which is None else find(traces, which)
    if as_json:
        if isinstance(found, Session):
            _print_json(session_told(traces, found))
        else:
            _print_json(turn_told(traces, found))
    elif isinstance(found, Session):
        console.print(waterfall.session_picture(traces, found, console.width))
    else:
        console.print(turn_picture.turn_picture(found, console.width, traces))


@trace.command()
@as_json_option
@reading
def tail(folder: Path, as_json: bool) -> None:
    """Print turns as they end, until Ctrl-C."""
    from wsproxy.terminal.table import console as terminal
    from wsproxy.trace import waterfall
    from wsproxy.trace.reader import follow
    from wsproxy.trace.record import TurnRecord, whole

    console = terminal()
    with suppress(KeyboardInterrupt):
        for record in follow(folder):
            if not isinstance(record, TurnRecord):
                continue
            if as_json:
                click.echo(json.dumps(whole(record)))
            else:
                console.print(waterfall.tail_line(record), soft_wrap=True)


@trace.command()
@click.argument("turn", metavar="TURN", required=False)
@as_json_option
@reading
def explain(folder: Path, turn: str | None, as_json: bool) -> None:
    """Say why a turn was sent as a delta or in full, and what would change it.

    TURN is the id of a turn, or its beginning, as `wsproxy trace show` lists them.
    """
    from wsproxy.terminal.table import console as terminal
    from wsproxy.trace import advice, turn_picture
    from wsproxy.trace.reader import find_turn

    if turn is None:
        raise click.UsageError(f"missing argument TURN\n{_LISTS_TURNS}")
    traces = _read(folder)
    found = find_turn(traces, turn)
    if as_json:
        told = msgspec.to_builtins(advice.explain(found, traces))
        about = {"route": found.route, "reason": found.reason, "about": found.about}
        _print_json({"turn": found.turn, **about, **told})
    else:
        terminal().print(turn_picture.explanation(found, traces))


@trace.command()
@click.argument("which", metavar="[SESSION]...", nargs=-1)
@as_json_option
@reading
def stats(folder: Path, which: Sequence[str], as_json: bool) -> None:
    """Add up turns, deltas, bytes and times: per day and session, or of given sessions."""
    from wsproxy.terminal.table import console as terminal
    from wsproxy.trace import lists
    from wsproxy.trace.reader import find_session
    from wsproxy.trace.report import by_day, by_session

    traces = _read(folder)
    sessions = [find_session(traces, one) for one in which] or traces.newest_first()
    rows, days = by_session(sessions), [] if which else by_day(traces)
    if as_json:
        _print_json({"sessions": rows, "days": days})
        return
    console = terminal()
    if days:
        console.print(lists.all_statistics(days, rows, console.width))
    else:
        console.print(lists.statistics(rows, "session", console.width))


@trace.command()
@which_argument
@click.option("--format", "form", type=click.Choice(("jsonl", "har", "perfetto", "otlp")),
              default="jsonl", show_default=True, help="What reads it.")  # fmt: skip
@click.option("--output", "-o", "target", metavar="FILE", type=click.Path(path_type=Path),
              help="A new file instead of stdout.")  # fmt: skip
@click.option("--to", "url", metavar="URL",
              help="Post it to this OTLP/HTTP endpoint instead (format otlp).")  # fmt: skip
@reading
def export(
    folder: Path, which: Sequence[str], form: str, target: Path | None, url: str | None
) -> None:
    """Write sessions or turns (default: all) for other tools. No export holds a body.

    Of a turn that is named, only that turn is written.

    \b
    jsonl     one JSON object a turn, as recorded
    har       HAR 1.2, for the network panel of a browser
    perfetto  Chrome trace events, for ui.perfetto.dev
    otlp      OTLP/HTTP JSON spans with the GenAI conventions, for a collector
    """
    from wsproxy.trace.export import FORMATS
    from wsproxy.trace.export.otlp import send
    from wsproxy.trace.reader import chosen

    if url is not None and (form != "otlp" or target is not None):
        raise click.UsageError("--to goes with --format otlp and without --output")
    traces = _read(folder)
    lines = FORMATS[form](traces, chosen(traces, which) if which else traces.newest_first())
    if url is not None:
        send("".join(lines), url)
    else:
        _write(lines, target)


@trace.command()
@as_json_option
@reading
def replay(folder: Path, as_json: bool) -> int:
    """Run the recorded events through a fresh core, and compare its commands.

    Every run of the daemon that the folder holds. Ends with exit code 1 if one differs: that is a
    bug of wsproxy, or a journal of another version.
    """
    from wsproxy.terminal.table import console as terminal
    from wsproxy.trace import lists
    from wsproxy.trace.replay import outcomes

    found = list(outcomes(folder))
    if as_json:
        _print_json(found)
    else:
        console = terminal()
        console.print(lists.replay_outcomes(found, console.width))
    return 1 if any(outcome.difference for outcome in found) else 0


@trace.command()
@which_argument
@click.option("--output", "-o", "target", metavar="FILE", type=click.Path(path_type=Path),
              help="A new file instead of stdout.")  # fmt: skip
@reading
def share(folder: Path, which: Sequence[str], target: Path | None) -> None:
    """Write a copy of sessions or turns (default: the latest session) to show to strangers.

    Of a turn that is named, only that turn is copied. Says on stderr what was removed.
    `wsproxy trace list --dir FILE` and the others read the copy.
    """
    from wsproxy.trace.reader import chosen
    from wsproxy.trace.share import Redaction, removed_lines

    traces = _read(folder)
    redaction = Redaction()
    lines = redaction.copy(traces, chosen(traces, which) or [traces.latest])
    _write(lines, target)
    click.echo("removed:", err=True)
    for line in removed_lines(redaction.removed):
        click.echo(f"  {line}", err=True)


def _read(folder: Path) -> Traces:
    """Everything in the folder; damage and gaps are told on stderr."""
    from wsproxy.trace.amounts import counted
    from wsproxy.trace.reader import read_traces

    traces = read_traces(folder)
    for count, what in ((traces.damaged, "damaged line"), (traces.dropped, "lost record")):
        if count:
            click.echo(f"wsproxy: {counted(count, what)} in {folder}", err=True)
    return traces


def _write(lines: Any, target: Path | None) -> None:
    from wsproxy.trace.folder import write_new_file

    text = "".join(f"{line}\n" for line in lines)
    if target is None:
        click.echo(text, nl=False)
        return
    try:
        write_new_file(target, text.encode())
    except FileExistsError:
        raise click.ClickException(f"{target} is there already\nname another file") from None
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}") from None


def _print_json(value: object) -> None:
    click.echo(json.dumps(msgspec.to_builtins(value), indent=2))
