"""Who shares a connection, and who continues whom on it (contract §3, §5)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.canary import secret
from tests.scenarios.conftest import Start
from tests.worlds import KEY, TOOL, Answer, Item, World, http_client, user
from wsproxy.simulator import Rules
from wsproxy.simulator.log import Create, Ended


def text_of(answer: Answer) -> str:
    """What the model said: it counts the items that it saw."""
    return str(answer.response()["output"][-1]["content"][0]["text"])


async def talk(scene: World, items: list[Item], **more: Any) -> Answer:
    """Say the last of `items`, take the answer in, and add what comes next."""
    answer = await scene.turn(items, **more)
    assert answer.status == 200, answer.body
    items += [*answer.response()["output"], user(f"more {len(items)}")]
    return answer


def peaks(scene: World) -> dict[int, int]:
    """The most turns that ran at once, by connection."""
    running: Counter[int] = Counter()
    most: dict[int, int] = {}
    for record in scene.sim.log:
        if isinstance(record, Create) and record in scene.seen:
            running[record.connection] += 1
            most[record.connection] = max(
                most.get(record.connection, 0), running[record.connection]
            )
        elif isinstance(record, Ended):
            running[record.connection] -= 1
    return most


def sockets(scene: World) -> list[int]:
    """The connection of each turn, in order."""
    assert {create.via for create in scene.seen} == {"ws"}
    return [create.connection for create in scene.seen]


# ── The wall ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("Authorization", f"Bearer {KEY}", f"Bearer {secret('two')}"),
        ("OpenAI-Organization", "org-one", "org-two"),
        ("OpenAI-Project", "proj-one", "proj-two"),
        ("OpenAI-Beta", "one=1", "two=2"),
        ("chatgpt-account-id", "acc-one", "acc-two"),
        ("X-Nobody-Knows", "a", "b"),
    ],
)
async def test_two_identities_never_share_a_socket_or_a_history(
    scene: World, name: str, one: str, two: str
) -> None:
    items = [user("hello")]
    first = await talk(scene, items, headers={name: one, "session-id": "s"})
    other = await scene.turn(items, headers={name: two, "session-id": "s"})
    again = await scene.turn(items, headers={name: one, "session-id": "s"})

    assert [first.route, other.route, again.route] == ["full", "full", "delta"]
    upgrades = {o.connection: dict(o.headers) for o in scene.sim.log.websockets()}
    sent = [
        {n.lower(): v for n, v in upgrades[connection].items()}[name.lower().encode()].decode()
        for connection in sockets(scene)
    ]
    assert sent == [one, two, one]


async def test_an_unknown_header_that_changes_goes_over_https(scene: World) -> None:
    routes = [
        (await scene.turn([user("hello")], headers={"X-Trace": str(number)})).headers
        for number in range(4)
    ]

    told = [headers["x-wsproxy-route"] for headers in routes]
    assert [route.partition(";")[0] for route in told] == ["full", "full", "http", "http"]
    assert told[-1] == "http; reason=volatile_header"


async def test_what_is_said_per_request_changes_no_identity(scene: World) -> None:
    for number in range(4):
        headers = {"x-client-request-id": str(number), "x-stainless-retry-count": str(number)}
        await scene.turn([user("hello")], headers=headers)

    assert len(set(sockets(scene))) == 1


# ── Affinity ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["session-id", "session_id", "x-session-id", "x-session-affinity", "thread-id"]
)
async def test_a_session_header_chooses_the_connection(scene: World, name: str) -> None:
    for session in ("one", "two", "one", "two"):
        await scene.turn([user(f"hello {session}")], headers={name: session})

    first, second, *rest = sockets(scene)
    assert first != second
    assert rest == [first, second]


async def test_a_prompt_cache_key_is_a_session_hint_too(scene: World) -> None:
    for session in ("one", "two", "one"):
        await scene.turn([user("hello")], prompt_cache_key=session)

    first, second, third = sockets(scene)
    assert (first == third, first == second) == (True, False)


async def test_a_hint_that_is_new_every_time_does_not_move_a_conversation(scene: World) -> None:
    items = [user("hello")]
    routes = [
        (await talk(scene, items, prompt_cache_key=f"fresh-{number}")).route for number in range(6)
    ]

    assert routes == ["full"] + ["delta"] * 5
    assert len(set(sockets(scene))) == 1


async def test_without_a_hint_all_conversations_share_one_connection(scene: World) -> None:
    for number in range(5):
        await scene.turn([user(f"hello {number}")])

    assert len(set(sockets(scene))) == 1


async def test_side_calls_under_one_session_leave_the_main_chat_alone(scene: World) -> None:
    session = {"session-id": "main"}
    title = await scene.turn([user("hello")], headers=session, instructions="Name this.")
    items = [user("hello")]
    routes = []
    for _ in range(4):
        main, *subs = await asyncio.gather(
            talk(scene, items, headers=session, tools=[TOOL]),
            scene.turn([user("sub one")], headers=session, tools=[TOOL]),
            scene.turn([user("sub two")], headers=session, instructions="Look."),
        )
        routes.append(main.route)
        assert {sub.status for sub in subs} == {200}

    assert title.status == 200
    assert routes == ["full", "delta", "delta", "delta"]
    assert len(set(sockets(scene))) == 1


# ── Lanes ────────────────────────────────────────────────────────────────────────────────────


async def test_forty_conversations_live_on_one_connection(scene: World) -> None:
    talks = [[user(f"hello {number}")] for number in range(40)]
    for items in talks:
        await talk(scene, items)
    answers = [await talk(scene, items) for items in reversed(talks)]

    routes = Counter(f"{answer.route} {answer.reason}".strip() for answer in answers)
    assert routes == {"delta": 32, "full parent_evicted": 8}
    assert all(text_of(answer).startswith("items=3") for answer in answers)
    assert len(set(sockets(scene))) == 1
    assert len({create.lane for create in scene.seen}) == 32


async def test_more_than_sixteen_at_once_take_a_second_connection(scene: World) -> None:
    await scene.turn([user("first")])
    orders = {"sim.think_ms": "400"}
    answers = await asyncio.gather(
        *(
            scene.turn([user(f"hello {n}")], metadata={**orders, "canary": str(n)})
            for n in range(24)
        )
    )

    assert all(f"canary={n} " in text_of(answer) for n, answer in enumerate(answers))
    assert {answer.status for answer in answers} == {200}
    loads = peaks(scene)
    assert len(loads) == 2
    assert max(loads.values()) == 16, "upstream would queue what is more"


async def test_an_upstream_with_fewer_lanes_than_ours_is_answered_unseen(start: Start) -> None:
    scene = await start(Rules(max_lanes=2), lanes="on", continuation="on")
    answers = [await scene.turn([user(f"hello {number}")]) for number in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert sockets(scene)[0] != sockets(scene)[-1]


async def test_two_clients_continue_one_conversation_at_once(scene: World) -> None:
    items = [user("hello")]
    await talk(scene, items)
    orders = {"sim.think_ms": "300"}
    async with http_client() as other:
        elsewhere = World(scene.sim, scene.proxy, other)
        one, two = await asyncio.gather(
            scene.turn(items, metadata={**orders, "canary": "one"}),
            elsewhere.turn(items, metadata={**orders, "canary": "two"}),
        )

    assert sorted([one.route, two.route]) == ["delta", "fork"]
    assert text_of(one).startswith("items=3 canary=one ")
    assert text_of(two).startswith("items=3 canary=two ")


async def test_regenerate_undo_and_branch_find_their_checkpoints(start: Start) -> None:
    scene = await start(lanes="on", continuation="on")
    items = [user("one")]
    await talk(scene, items)
    early = list(items)
    await talk(scene, items)
    branch = [*early[:-1], user("another way")]
    stored = [user("kept")]
    await talk(scene, stored, store=True)
    kept = list(stored)
    await talk(scene, stored, store=True)

    assert (await scene.turn(branch)).reason == "parent_evicted"
    assert (await scene.turn([*kept[:-1], user("another way")], store=True)).route == "delta"


@pytest.mark.parametrize("lanes", ["ignored", "refused"])
async def test_without_lanes_each_connection_runs_one_turn_at_a_time(
    start: Start, lanes: Any
) -> None:
    scene = await start(Rules(lanes=lanes), continuation="on")
    talks = [[user(f"hello {number}")] for number in range(4)]
    orders = {"sim.think_ms": "20"}
    for number in range(3):
        answers = await asyncio.gather(*(talk(scene, items, metadata=orders) for items in talks))
        assert {text_of(a).partition(" ")[0] for a in answers} == {f"items={2 * number + 1}"}
        assert "fork" not in {answer.route for answer in answers}

    assert set(peaks(scene).values()) == {1}
    assert {create.lane for create in scene.seen} <= {"", "l01"}


@pytest.mark.parametrize("lanes", ["ignored", "refused"])
async def test_one_conversation_is_continued_without_lanes(start: Start, lanes: Any) -> None:
    scene = await start(Rules(lanes=lanes), continuation="on")
    items = [user("hello")]
    routes = [(await talk(scene, items)).route for _ in range(6)]

    assert routes == ["full"] + ["delta"] * 5
    assert len(set(sockets(scene))) == 1


@pytest.mark.parametrize("continuation", ["ignored_null", "ignored_echoed"])
async def test_an_upstream_that_ignores_parents_gets_every_turn_in_full(
    start: Start, continuation: Any
) -> None:
    scene = await start(Rules(continuation=continuation))
    items = [user("one")]
    answers = []
    for _ in range(5):
        answers.append(await talk(scene, items))
        await scene.chains_told()

    assert [answer.route for answer in answers] == ["full"] * 5
    assert {answer.reason for answer in answers[1:]} == {"chains_unproven"}
    seen = [int(text_of(answer).partition(" ")[0].removeprefix("items=")) for answer in answers]
    assert seen == [1, 3, 5, 7, 9]


async def test_an_upstream_that_stops_naming_parents_gets_no_second_delta(start: Start) -> None:
    scene = await start(Rules(chain_turns=2, chain_loss="silent_null"))
    items = [user("one")]
    answers = [await talk(scene, items)]
    await scene.chains_told()
    answers.append(await talk(scene, items))
    lost = await scene.turn([*items, user("and?")])
    after = [await talk(scene, items) for _ in range(2)]

    assert [answer.route for answer in (*answers, lost, *after)] == [
        *("full", "delta", "none", "full", "full")
    ]
    assert (lost.status, lost.json()["error"]["code"]) == (502, "upstream_lost_context")
    assert text_of(after[-1]).startswith("items=7")


async def test_an_upstream_that_forgets_and_names_the_parent_all_the_same_is_found_out(
    start: Start,
) -> None:
    scene = await start(Rules(chain_turns=2, chain_loss="silent"))
    items = [user("one")]
    answers = []
    for _ in range(2):
        answers.append(await talk(scene, items))
        await scene.chains_told()
    lost = await scene.turn([*items, user("and?")])
    after = [await talk(scene, items) for _ in range(2)]

    assert [answer.route for answer in (*answers, lost, *after)] == [
        *("full", "delta", "none", "full", "full")
    ]
    assert (lost.status, lost.json()["error"]["code"]) == (502, "upstream_lost_context")
    assert text_of(after[-1]).startswith("items=7")


async def test_an_upstream_that_loses_its_chains_is_answered_in_full_unseen(start: Start) -> None:
    scene = await start(Rules(chain_turns=1, chain_loss="refused"), continuation="on")
    items = [user("one")]
    answers = [await talk(scene, items) for _ in range(4)]

    assert [answer.reason for answer in answers[1:]] == ["parent_refused"] * 3
    assert [answer.status for answer in answers] == [200] * 4
    assert text_of(answers[-1]).startswith("items=7")


async def test_chains_are_proven_off_every_turns_path(start: Start) -> None:
    scene = await start()
    items = [user("one")]
    first = await talk(scene, items)
    await scene.chains_told()
    second = await talk(scene, items)

    assert [first.route, second.route] == ["full", "delta"]
    probe = next(c for c in scene.sim.log.creates() if c not in scene.seen)
    assert probe.connection not in sockets(scene), "a probe has a connection of its own"


# ── Age ──────────────────────────────────────────────────────────────────────────────────────


async def test_rotation_loses_no_turn(start: Start) -> None:
    scene = await start(
        lanes="on", continuation="on", connection_max_age_s=0.08, connection_age_jitter_s=0.0
    )
    talks = [[user(f"hello {number}")] for number in range(3)]
    for _ in range(8):
        await asyncio.gather(
            *(talk(scene, items, metadata={"sim.think_ms": "20"}) for items in talks)
        )

    assert len(set(sockets(scene))) > 1, "no connection was old enough"
    assert {create.via for create in scene.seen} == {"ws"}
    await scene.quiet()


async def test_a_connection_at_its_limit_is_replaced_unseen(start: Start) -> None:
    scene = await start(Rules(connection_life_s=0.15), lanes="on", continuation="on")
    items = [user("one")]
    for _ in range(6):
        await talk(scene, items)
        await asyncio.sleep(0.05)

    assert len(set(sockets(scene))) > 1
