"""How far a policy is from its reference, on its own replies."""

from __future__ import annotations

import torch

from chatrlhf.models.policy import Policy
from chatrlhf.training.batches import make_batch
from chatrlhf.training.rollout import Rollout
from chatrlhf.training.row_limit import parts_of


@torch.no_grad()
def mean_sequence_kl(policy: Policy, rollout: Rollout, temperature: float, rows: int) -> float:
    """Mean of log pi - log pi_reference summed over each reply that ``policy`` sampled, in nats.

    ``rows`` replies go through the model at once.
    """
    total = 0.0
    for sequences in parts_of(rollout.sequences, rows):
        batch = make_batch(sequences, policy.base.chat_format.pad_token_id, policy.base.device)
        with policy.as_reference() as reference:
            own, theirs = (
                one.token_statistics(
                    batch.token_ids, batch.predicts_response, batch.targets, temperature
                ).logprobs
                for one in (policy, reference)
            )
        total += float((own - theirs).sum())
    return total / len(rollout)
