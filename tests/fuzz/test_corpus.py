"""Each target takes its corpus, and some hundred mutations of it; `scripts/fuzz` takes more."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.mutator import MAX_BYTES, Mutator
from tests.fuzz.targets import TARGETS, corpus_of, seeds_of
from tests.fuzz.trial import Trial

#: So that all of them take a few seconds; those with sockets or tables cost the most.
MUTATIONS = {"http": 150, "upstream": 100, "journal": 60}
USUAL_MUTATIONS = 250


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus_gets_a_documented_answer(name: str) -> None:
    with Trial.of(TARGETS[name].open) as trial:
        for path in corpus_of(name):
            failure = trial.failure(path.read_bytes())
            assert failure is None, f"scripts/fuzz {name} --input {path}: {failure}"


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_nearly_right_get_a_documented_answer(name: str) -> None:
    mutator = Mutator(TARGETS[name].grammar, seeds_of(name), Random(1))
    with Trial.of(TARGETS[name].open) as trial:
        for _ in range(MUTATIONS.get(name, USUAL_MUTATIONS)):
            failure = trial.failure(mutator.draw())
            assert failure is None, f"{failure.kind}: {failure}"


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_seed_draws_the_same_inputs(name: str) -> None:
    grammar, seeds = TARGETS[name].grammar, seeds_of(name)
    one, other = (Mutator(grammar, seeds, Random(7)) for _ in range(2))
    drawn = [one.draw() for _ in range(50)]
    assert drawn == [other.draw() for _ in range(50)]
    assert len(set(drawn)) > 25
    assert max(map(len, drawn)) <= MAX_BYTES


def _raises_at_a_bang(raw: bytes) -> None:
    if b"!" in raw:
        raise RuntimeError("a bang")


def test_a_failing_input_is_made_small() -> None:
    trial = Trial(_raises_at_a_bang)
    failure = trial.failure(b"a long text with a ! in it")
    assert failure is not None
    assert trial.shrunk(failure).raw == b"!"
    assert trial.failure(b"a text without") is None
