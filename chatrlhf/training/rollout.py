"""Rollouts: the policy answers prompts, by pure sampling with the engine's own decode loop.

Departures from the chat: no top-k, no top-p, nothing but the temperature, since PPO's ratio is
only right for samples of the very distribution that it updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.drawing import Drawer, Wanted, draw_one
from chatrlhf.engine.native_check import native_decoder
from chatrlhf.engine.native_step import NativeDecoder
from chatrlhf.engine.requests import Sampling
from chatrlhf.engine.sampling import RowGenerator, uniforms_at
from chatrlhf.engine.small_batch import speed_up
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.policy import Policy
from chatrlhf.native import decoder as native
from chatrlhf.training.batches import TokenSequence
from chatrlhf.training.row_limit import RowLimit

ROLLOUT_ADAPTER = "rollout"
# A decoder holds the weights of its base, but not the base itself: both go together.
_natives: WeakKeyDictionary[BaseModel, NativeDecoder | None] = WeakKeyDictionary()


@dataclass(frozen=True)
class Rollout:
    """Prompts and the replies sampled for them.

    ``responses`` hold the end-of-turn token where the reply ended by itself (``finished``);
    ``logprobs`` is what each response token was drawn with.
    """

    prompts: tuple[tuple[int, ...], ...]
    responses: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]
    finished: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def sequences(self) -> list[TokenSequence]:
        """Each prompt with its response."""
        pairs = zip(self.prompts, self.responses, strict=True)
        return [TokenSequence.of_reply(prompt, response) for prompt, response in pairs]


@dataclass
class _Reply:
    """A reply being sampled."""

    prompt: Sequence[int]
    generator: RowGenerator
    tokens: list[int]
    logprobs: list[float]
    finished: bool = False


def collect_rollout(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    max_new_tokens: int,
    temperature: float,
    limit: RowLimit | None = None,
) -> Rollout:
    """Sample one reply to each prompt.

    Row ``i`` draws from the generator of ``(seed, i)``. All rows are decoded together, or as many
    as ``limit`` allows.

    Raises:
        RoundError: memory runs out with a single row.
        ModelError: the model's logits are not numbers.
    """
    sampling = Sampling(temperature=temperature, top_p=1.0, max_new_tokens=max_new_tokens)
    limit = RowLimit() if limit is None else limit
    native_one = _native(policy)

    def attempt(rows: int) -> list[_Reply]:
        replies = [
            _Reply(prompt, RowGenerator(seed, row), [], []) for row, prompt in enumerate(prompts)
        ]
        for start in range(0, len(replies), rows):
            _decode(policy, adapter, replies[start : start + rows], sampling, native_one)
        return replies

    with torch.inference_mode(), _decoding(policy) as adapter:
        replies = limit.halving(len(prompts), attempt)
    return Rollout(
        prompts=tuple(tuple(reply.prompt) for reply in replies),
        responses=tuple(tuple(reply.tokens) for reply in replies),
        logprobs=tuple(tuple(reply.logprobs) for reply in replies),
        finished=tuple(reply.finished for reply in replies),
    )


def _decode(
    policy: Policy,
    adapter: str | None,
    replies: Sequence[_Reply],
    sampling: Sampling,
    native_one: NativeDecoder | None,
) -> None:
    """Sample replies together; rows that have ended leave the batch."""
    ends = policy.base.chat_format.end_token_ids
    prompts = [reply.prompt for reply in replies]
    state = DecodeState.prefill(
        policy.base, policy.bank, prompts, adapters=[adapter] * len(prompts), native=native_one
    )
    drawer = Drawer(torch.get_num_threads())
    active = list(replies)
    for step in range(sampling.max_new_tokens):
        uniforms = uniforms_at([reply.generator for reply in active], step)
        drawn = draw_one(drawer, Wanted(state.logits, sampling, uniforms))
        kept = []
        tokens = zip(active, drawn.token_ids.tolist(), drawn.logprobs.tolist(), strict=True)
        for place, (reply, token, logprob) in enumerate(tokens):
            reply.tokens.append(token)
            reply.logprobs.append(logprob)
            reply.finished = token in ends
            if not reply.finished:
                kept.append(place)
        active = [active[place] for place in kept]
        if not active or step + 1 == sampling.max_new_tokens:
            break
        state.keep(kept)
        state.step(drawn.token_ids[kept])


def _native(policy: Policy) -> NativeDecoder | None:
    """The native decoder over the very weights that are updated; it is checked once a model."""
    if policy.base.device.type != "cpu":
        return None
    speed_up(policy.base.model)
    if policy.base not in _natives:
        _natives[policy.base] = native_decoder(policy.base, policy.bank, native.BF16, 1)
    found = _natives[policy.base]
    if found is not None:
        found.threads = torch.get_num_threads()
        if policy.adapter is not None:
            policy.bank.mark_changed(policy.adapter)  # an optimizer updates it in place
    return found


@contextmanager
def _decoding(policy: Policy) -> Iterator[str | None]:
    """The adapter to decode with.

    On a GPU it is a copy in the compute type, which saves a cast in every layer of every step; a
    CPU multiplies the small matrices faster as they are.
    """
    if policy.base.device.type == "cpu":
        yield policy.adapter
        return
    if policy.adapter is None:
        yield None
        return
    policy.bank.add(ROLLOUT_ADAPTER, dtype=policy.base.compute_dtype)
    try:
        policy.bank.copy(policy.adapter, ROLLOUT_ADAPTER)
        yield ROLLOUT_ADAPTER
    finally:
        policy.bank.remove(ROLLOUT_ADAPTER)
