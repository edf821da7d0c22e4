"""How far a policy is from its reference, on its own replies."""

from __future__ import annotations

import math

import torch

from chatrlhf.models.policy import Policy
from chatrlhf.training.batches import TokenSequence, make_batch
from chatrlhf.training.parallel import cores, in_parallel
from chatrlhf.training.rollout import Rollout
from chatrlhf.training.row_limit import parts_of


@torch.no_grad()
def mean_sequence_kl(policy: Policy, rollout: Rollout, temperature: float, rows: int) -> float:
    """Mean of log pi - log pi_reference summed over each reply that ``policy`` sampled, in nats.

    ``rows`` replies go through the model at once.
    """
    at_once = cores(policy.base.device)
    size = min(rows, math.ceil(len(rollout) / at_once))

    def total(sequences: list[TokenSequence]) -> float:
        batch = make_batch(sequences, policy.base.chat_format.pad_token_id, policy.base.device)
        with policy.as_reference() as reference:
            own, theirs = (
                one.token_statistics(
                    batch.token_ids, batch.predicts_response, batch.targets, temperature
                ).logprobs
                for one in (policy, reference)
            )
        return float((own - theirs).sum())

    return sum(in_parallel(total, parts_of(rollout.sequences, size), at_once)) / len(rollout)
