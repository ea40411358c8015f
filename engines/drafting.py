"""Guesses what sequences will say next from what they said before. Pure.

The last tokens of a sequence are looked up in its own prompt and output; what followed there last
time is the draft. That costs no model, and is right where text repeats: quotes, code, lists, JSON.

Each sequence has a length of its own for drafts, which grows while they are right and falls when
they are not; after drafts of which nothing was right it pauses, each time longer. Rows are nearly
free while there are few of them, so only a few in all, and only while few sequences run.
"""

import numpy as np

from engines.api import GenerationRequest
from engines.drafts import Drafts
from engines.lanes import Lanes
from engines.limits import Limits
from engines.step import Int32Array
from engines.tables import IntpArray

MOST_LIVE = 2  # sequences, beyond which nobody drafts
MOST_ROWS = 8  # of a step with drafts
_FIRST = 3  # tokens of a sequence's first draft
_LOOKED_UP = (3, 2)  # last tokens, the longer first
_LONGEST_PAUSE = 64  # steps
_NOTHING = np.zeros(0, np.int32)


class Drafter:
    """Drafts of at most `limits.draft_tokens` tokens for each sequence and step."""

    def __init__(self, limits: Limits, lanes: Lanes) -> None:
        self._most = limits.draft_tokens
        self._rows = min(MOST_ROWS, limits.tokens_per_step)
        self._lanes = lanes
        self._size = np.zeros(limits.max_running, np.intp)  # of the next draft; 0: never any
        self._pause = np.zeros(limits.max_running, np.intp)  # steps without
        self._misses = np.zeros(limits.max_running, np.intp)  # in a row

    def begin(self, lane: int, request: GenerationRequest) -> None:
        """A sequence takes a lane."""
        self._size[lane] = _FIRST if self._most and may_draft(request) else 0
        self._pause[lane] = self._misses[lane] = 0

    def draft(self, lanes: IntpArray) -> IntpArray | None:
        """How many tokens were guessed for each of these lanes; None where there are none at all.

        They lie behind the lane's own tokens, and none needs a block that the lane does not have.
        """
        if not self._most or len(lanes) > MOST_LIVE or not self._size[lanes].any():
            return None
        each = min(self._most, self._rows // len(lanes) - 1)
        counts = [self._draft(lane, each) for lane in lanes.tolist()]
        return np.array(counts) if any(counts) else None

    def verify(self, drafts: Drafts, lanes: IntpArray, tokens: Int32Array) -> list[range]:
        """The samples of each lane that count, up to one that ends it. Learns from the rest."""
        runs = []
        starts, counted = np.flatnonzero(drafts.first).tolist(), drafts.counted(tokens)
        for lane, start, end in zip(
            lanes.tolist(), starts, [*starts[1:], len(tokens)], strict=True
        ):
            count = int(counted[start:end].sum())
            if end - start > 1:
                self._learn(lane, end - start - 1, count - 1)
            run = range(start, start + count)
            stops = self._lanes.occupant(lane).request.sampling.stop_tokens
            ends = [each + 1 for each in run if int(tokens[each]) in stops]
            runs.append(range(start, ends[0]) if ends else run)
        return runs

    def _draft(self, lane: int, most: int) -> int:
        if self._pause[lane]:
            self._pause[lane] -= 1
            return 0
        lanes, length = self._lanes, int(self._lanes.length[lane])
        # One token is sampled behind the last of a draft, which has to be within the limit too.
        room = min(int(lanes.tables.room[lane]), int(lanes.limit[lane]) - 1) - length
        most = min(most, int(self._size[lane]), room)
        if most < 1:
            return 0
        found = look_up(lanes.tokens[lane, :length], most)
        lanes.tokens[lane, length : length + len(found)] = found
        return len(found)

    def _learn(self, lane: int, drafted: int, right: int) -> None:
        if right:
            whole = right == drafted
            self._misses[lane] -= whole and self._misses[lane] > 0  # not forgotten at once
            self._size[lane] = min(self._most, 2 * right + 1 if whole else right)
        else:
            self._misses[lane] += 1
            self._size[lane] = 1
            self._pause[lane] = min(_LONGEST_PAUSE, 1 << min(int(self._misses[lane]), 10))


def may_draft(request: GenerationRequest) -> bool:
    """Whether a sample's logits depend on its own row only, and not on what else was said.

    Guides, grammars, penalties and least lengths go by the tokens so far: to sample behind a draft
    they would have to be told of it, and to forget it again.
    """
    sampling = request.sampling
    guided = (sampling.grammar, sampling.allowed, sampling.thinking) != (None, None, None)
    penalised = sampling.presence or sampling.frequency or sampling.repetition != 1.0
    counted = guided or penalised or sampling.bad_words or sampling.min_tokens
    return not (counted or request.pooled)


def look_up(tokens: Int32Array, most: int) -> Int32Array:
    """Up to `most` tokens that followed the last time that the last few were said; may be none.

    Where that was so lately that less follows, it is repeated: so texts with a period go on.
    """
    known = np.flatnonzero(tokens[:-1] == tokens[-1])
    for width in _LOOKED_UP:
        places = known[known >= width - 1]
        for back in range(1, width):
            if not len(places):
                break
            places = places[tokens[places - back] == tokens[-1 - back]]
        if len(places):
            return np.resize(tokens[places[-1] + 1 :][:most], most)
    return _NOTHING
