"""Many conversations through a box at once: what their parts ask the same model in the same way is asked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from expunge.boxed.parts import Ask, Sampling, Steps
from expunge.boxed.upstream import Upstream
from expunge.models.chat import Conversation


@dataclass(frozen=True, repr=False)
class Program:
    """Args:
    steps: of one answer. beyond: tokens that the filter may read beyond the end of the answer.
    """

    steps: Steps[str]
    beyond: int


def run_batch(programs: Sequence[Program], upstreams: Mapping[str, Upstream]) -> list[str]:
    """The answers, in order."""
    done: dict[int, str] = {}
    asked: dict[int, Ask] = {}

    def go_on(number: int, heard: str | None) -> None:
        steps = programs[number].steps
        try:
            asked[number] = next(steps) if heard is None else steps.send(heard)
        except StopIteration as stopped:
            done[number] = stopped.value

    for number in range(len(programs)):
        go_on(number, None)
    while asked:
        now, asked = dict(asked), {}
        for number, heard in _answers(now, [p.beyond for p in programs], upstreams).items():
            go_on(number, heard)
    return [done[number] for number in range(len(programs))]


def _answers(asked: Mapping[int, Ask], beyond: Sequence[int], upstreams: Mapping[str, Upstream]) -> dict[int, str]:
    groups: dict[tuple[str, Sampling], list[int]] = {}
    for number, ask in asked.items():
        groups.setdefault((ask.model, replace(ask.sampling, draw=0)), []).append(number)
    heard: dict[int, str] = {}
    for (model, sampling), numbers in groups.items():
        heard |= _group(upstreams[model], sampling, {n: asked[n] for n in numbers}, max(beyond[n] for n in numbers))
    return heard


def _group(upstream: Upstream, sampling: Sampling, asked: Mapping[int, Ask], beyond: int) -> dict[int, str]:
    """Each conversation once, with as many draws as are wanted of it."""
    wanted: dict[tuple[tuple[str, str], ...], Conversation] = {}
    for ask in asked.values():
        wanted.setdefault(_key(ask.conversation), ask.conversation)
    conversations = list(wanted.values())
    room = upstream.room(conversations, sampling.max_new_tokens)
    tokens = sampling.max_new_tokens + (beyond if room is None else max(0, min(beyond, room)))
    draws = max(ask.sampling.draw for ask in asked.values()) + 1
    if sampling.temperature > 0:
        said = upstream.model.chat(
            conversations, max_new_tokens=tokens, samples=draws, temperature=sampling.temperature, seed=sampling.seed
        )
    else:
        said = [one * draws for one in upstream.model.chat(conversations, max_new_tokens=tokens)]
    found = dict(zip(wanted, said, strict=True))
    return {number: found[_key(ask.conversation)][ask.sampling.draw] for number, ask in asked.items()}


def _key(conversation: Conversation) -> tuple[tuple[str, str], ...]:
    return tuple((m["role"], m["content"]) for m in conversation)
