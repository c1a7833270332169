"""One answer of a box in pieces, and how it is cut so that nothing but its text tells who gave it.

Models send pieces of their own size, a fixed reply comes all at once, a filter releases in bursts. What a client gets
is therefore cut anew: a word a piece, by the text alone. `stop` and the limit of tokens act on what is released, after
the filter; a model is asked for a few tokens more than the client wants, which only the filter reads, so that cutting
an answer off within a phrase does not carry its first half past the filter.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from expunge.boxed.parts import Ask, Sieve, Steps, T, Turn
from expunge.boxed.upstream import Limit, Upstream

if TYPE_CHECKING:
    from expunge.boxed.box import Box


@dataclass(frozen=True)
class End:
    """Args:
    reason: ``stop``: the answer ended, or one of the client's stops began. ``length``: as long as the client allows.
    """

    reason: Literal["stop", "length"]


LONGEST_PIECE = 16
LONG = 4000  # characters
_PIECE = re.compile(rf"\s*(?:\S{{{LONGEST_PIECE}}}|\S+(?=\s))")


class Words:
    """Cuts a text into words (of at most 16 characters) with the white space before them, however it arrives."""

    def __init__(self) -> None:
        self._held, self._begun = "", False

    def push(self, text: str) -> list[str]:
        """The pieces that are complete."""
        self._held += text
        out, at = [], 0
        for match in _PIECE.finditer(self._held):
            if match.start() != at:
                break
            out.append(self._own(match[0]))
            at = match.end()
        self._held = self._held[at:]
        return out

    def finish(self) -> list[str]:
        """What is left, white space at the end taken off."""
        rest, self._held = self._held.rstrip(), ""
        return [self._own(rest)] if rest else []

    def _own(self, piece: str) -> str:
        piece = piece if self._begun else piece.lstrip()
        self._begun = True
        return piece


class Stops:
    """Ends a text where one of several others would begin in it.

    Args:
        texts: not empty ones.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts, self._held, self.met = tuple(texts), "", False

    def push(self, text: str) -> str:
        if self.met:
            return ""
        self._held += text
        ends = [(at + len(t), at) for t in self._texts if (at := self._held.find(t)) >= 0]
        if ends:  # the first that is complete, as it would be were the text to come letter by letter
            self.met = True
            out, self._held = self._held[: min(ends)[1]], ""
            return out
        at = len(self._held) - self._open()
        out, self._held = self._held[:at], self._held[at:]
        return out

    def finish(self) -> str:
        out, self._held = self._held, ""
        return out

    def _open(self) -> int:
        """Characters at the end with which a stop may have begun."""
        return max(
            (
                n
                for t in self._texts
                for n in range(min(len(t) - 1, len(self._held)), 0, -1)
                if self._held.endswith(t[:n])
            ),
            default=0,
        )


class Cut:
    """Ends an answer after as many tokens as the client allows.

    An untouched answer ends where the model had told so many; of one that the filter changed or a part wrote, tokens
    are counted in what is released.

    Args:
        upstream: that counts. tokens: allowed.

    Attributes:
        touched: what is released is not, letter for letter, what a model said. rewritten: a part wrote it anew, and it
            is complete even where the model's answer was not.
    """

    def __init__(self, upstream: Upstream, tokens: int) -> None:
        self._upstream, self._tokens = upstream, tokens
        self._out, self._raw = "", 0
        self._at: int | None = None
        self.touched = self.rewritten = self.reached = False

    def model_told(self, piece: str | Limit) -> None:
        """Note what the model said, before the filter sees it."""
        if isinstance(piece, Limit):
            self._at = self._raw
        else:
            self._raw += len(piece)

    def push(self, text: str) -> str:
        """What of the filtered text is within the limit."""
        if self.reached:
            return ""
        whole = self._out + text
        if self.touched:
            kept = max(self._upstream.first(whole, self._tokens), self._out, key=len)  # what is out stays out
        else:
            kept = whole if self._at is None else whole[: max(self._at, len(self._out))]
        self.reached = len(kept) < len(whole)
        out, self._out = kept[len(self._out) :], kept
        return out

    @property
    def reason(self) -> Literal["stop", "length"]:
        return "length" if self.reached or (self._at is not None and not self.rewritten) else "stop"


async def answer(box: Box, turn: Turn, stop: Sequence[str]) -> AsyncGenerator[str | End, None]:
    """The answer to one conversation.

    Raises:
        Unavailable, Refused: a model does not answer, before or within the answer.
    """
    if len(turn.everything) > LONG:  # looked up beside the loop that serves the others
        await asyncio.to_thread(lambda: (turn.called, turn.called_last))
    cut, stops, words = Cut(box.main, turn.sampling.max_new_tokens), Stops(stop), Words()
    async with aclosing(_released(box, turn, cut)) as released:
        async for text in released:
            for piece in words.push(stops.push(cut.push(text))):
                yield piece
            if cut.reached or stops.met:
                break
    for piece in words.push(stops.finish()) + words.finish():
        yield piece
    yield End("stop" if stops.met else cut.reason)


async def _released(box: Box, turn: Turn, cut: Cut) -> AsyncGenerator[str, None]:
    """What the filters let through, as it becomes certain."""
    sieves = [one.sieve(turn) for one in box.settings.filters]
    through = [s for s in sieves if s is not None]
    async with aclosing(_told(box, turn, cut)) as told:
        if len(through) < len(sieves):
            said = "".join([piece async for piece in told])
            kept = await run(box, box.filtered(turn, said))
            cut.touched = cut.rewritten = cut.touched or kept != said
            yield kept
            return
        async for piece in told:
            text = _push(through, piece, cut)
            if text:
                yield text
    for number, sieve in enumerate(through):
        text = _push(through[number + 1 :], sieve.finish(), cut)
        cut.touched |= sieve.blocked
        if text:
            yield text


def _push(sieves: Sequence[Sieve], text: str, cut: Cut) -> str:
    for sieve in sieves:
        text = sieve.push(text) if text else ""
        cut.touched |= sieve.blocked
    return text


async def _told(box: Box, turn: Turn, cut: Cut) -> AsyncGenerator[str, None]:
    """What workers and composer say."""
    names = await run(box, box.settings.router.route(turn))
    said = [box.settings.workers[name].answer(turn) for name in names]
    asks = [one for one in said if isinstance(one, Ask)]
    if not asks and box.settings.outline.ask_anyway:
        await _begin(box, turn)
    if len(said) == 1 and asks and box.settings.composer.passes_on(1):
        upstream = box.upstreams[asks[0].model]
        stream = upstream.stream(asks[0].conversation, asks[0].sampling, beyond=box.look_ahead(turn))
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                cut.model_told(piece)
                if not isinstance(piece, Limit):
                    yield piece
        return
    cut.touched = True
    texts = [one if isinstance(one, str) else await ask(box, one, turn) for one in said]
    if box.settings.composer.passes_on(len(texts)):
        yield texts[0]
    else:
        yield await run(box, box.settings.composer.compose(turn, texts))


async def _begin(box: Box, turn: Turn) -> None:
    """Let the main model begin an answer that nobody reads: where it fails, the reply fails like an answer."""
    async with aclosing(box.main.stream(turn.conversation, turn.sampling)) as pieces:
        async for _ in pieces:
            break


async def run(box: Box, steps: Steps[T], turn: Turn | None = None) -> T:
    """Carry out steps, asking models as they want."""
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(await ask(box, wanted, turn))
    except StopIteration as stopped:
        value: T = stopped.value
        return value


async def ask(box: Box, wanted: Ask, turn: Turn | None = None) -> str:
    """The whole answer of a model; with tokens beyond it that the filter may read, where it goes to the client."""
    beyond = 0 if turn is None else box.look_ahead(turn)
    stream = box.upstreams[wanted.model].stream(wanted.conversation, wanted.sampling, beyond=beyond)
    async with aclosing(stream) as pieces:
        return "".join([piece async for piece in pieces if not isinstance(piece, Limit)]).strip()
