"""Rollouts: the policy answers prompts, by pure sampling with the engine's own decode loop.

Departures from the chat: no top-k, no top-p, nothing but the temperature, since PPO's ratio is
only right for samples of the very distribution that it updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from chatrlhf.engine.decode import DecodeState
from chatrlhf.engine.requests import Sampling
from chatrlhf.engine.sampling import RowGenerator, sample, uniforms_at
from chatrlhf.models.policy import Policy
from chatrlhf.training.batches import TokenSequence

ROLLOUT_ADAPTER = "rollout"


@dataclass(frozen=True)
class Rollout:
    """Prompts and the replies sampled for them.

    ``responses`` hold the end-of-turn token where the reply ended by itself (``finished``).
    """

    prompts: tuple[tuple[int, ...], ...]
    responses: tuple[tuple[int, ...], ...]
    finished: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def sequences(self) -> list[TokenSequence]:
        """Each prompt with its response."""
        pairs = zip(self.prompts, self.responses, strict=True)
        return [TokenSequence.of_reply(prompt, response) for prompt, response in pairs]


def collect_rollout(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    max_new_tokens: int,
    temperature: float,
) -> Rollout:
    """Sample one reply to each prompt.

    Weights are rounded once to the compute type, as every forward pass rounds them anyway.
    Row ``i`` draws from the generator of ``(seed, i)``.
    """
    with torch.inference_mode(), _decoding(policy) as adapter:
        state = DecodeState.prefill(
            policy.base, policy.bank, prompts, adapters=[adapter] * len(prompts)
        )
        ends = policy.base.chat_format.end_token_ids
        sampling = Sampling(temperature=temperature, top_p=1.0, max_new_tokens=max_new_tokens)
        generators = [RowGenerator(seed, row) for row in range(len(prompts))]
        responses: list[list[int]] = [[] for _ in prompts]
        finished = [False] * len(prompts)
        rows = list(range(len(prompts)))
        for step in range(max_new_tokens):
            uniforms = uniforms_at([generators[row] for row in rows], step)
            token_ids, _ = sample(state.logits, sampling, uniforms)
            kept = []
            for place, token in enumerate(token_ids.tolist()):
                responses[rows[place]].append(token)
                if token in ends:
                    finished[rows[place]] = True
                else:
                    kept.append(place)
            rows = [rows[place] for place in kept]
            if not rows or step + 1 == max_new_tokens:
                break
            state.keep(kept)
            state.step(token_ids[kept])
    return Rollout(
        prompts=tuple(tuple(prompt) for prompt in prompts),
        responses=tuple(tuple(response) for response in responses),
        finished=tuple(finished),
    )


@contextmanager
def _decoding(policy: Policy) -> Iterator[str | None]:
    """A copy of the policy's adapter in the compute type, for as long as it decodes."""
    if policy.adapter is None:
        yield None
        return
    policy.bank.add(ROLLOUT_ADAPTER, dtype=policy.base.compute_dtype)
    try:
        policy.bank.copy(policy.adapter, ROLLOUT_ADAPTER)
        yield ROLLOUT_ADAPTER
    finally:
        policy.bank.remove(ROLLOUT_ADAPTER)
