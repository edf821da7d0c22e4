"""The chat model as a policy: log-probabilities, entropies and hidden states of response tokens.

Notation: B rows, L positions, H hidden size, N response tokens of the batch in row-major order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from chatrlhf.maths.logprobs import TokenStatistics, token_statistics
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank


class Policy:
    """A base model with one active adapter, and the frozen adapter it is measured against.

    ``adapter`` is the name of the policy's adapter in the bank, ``reference`` that of the
    reference policy; None stands for the bare base.
    """

    def __init__(
        self, base: BaseModel, bank: LoraBank, adapter: str | None, reference: str | None = None
    ) -> None:
        self.base = base
        self.bank = bank
        self.adapter = adapter
        self.reference = reference

    @contextmanager
    def as_reference(self) -> Iterator[Policy]:
        """The reference policy, on the same weights with the other adapter."""
        yield Policy(self.base, self.bank, self.reference)

    def parameters(self) -> list[nn.Parameter]:
        """The trainable tensors."""
        return [] if self.adapter is None else self.bank.parameters_of(self.adapter)

    def hidden_states(self, token_ids: Tensor) -> Tensor:
        """Final hidden states of right-padded tokens, (B, L) -> (B, L, H)."""
        with self.bank.using(self.adapter):
            output = self.base.body(token_ids, attention_mask=None, position_ids=None)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def token_statistics(
        self, token_ids: Tensor, predicts_response: Tensor, targets: Tensor, temperature: float
    ) -> TokenStatistics:
        """Log-probabilities and entropies of the response tokens, (N,) float32 each.

        They are of the distribution that replies are sampled from, so suppressed tokens have none.

        Args:
            token_ids: (B, L) right-padded.
            predicts_response: (B, L) bool, True where the next token is a response token.
            targets: (N,) the response tokens.
            temperature: that of sampling.
        """
        return self.statistics_of(
            self.hidden_states(token_ids), predicts_response, targets, temperature
        )

    def statistics_of(
        self, hidden: Tensor, predicts_response: Tensor, targets: Tensor, temperature: float
    ) -> TokenStatistics:
        """The same from final hidden states (B, L, H) that are there already."""
        head = self.base.lm_head
        return token_statistics(
            hidden[predicts_response],
            head.weight,
            targets,
            temperature=temperature,
            softcap=self.base.final_logit_softcap,
            head_bias=getattr(head, "bias", None),
            suppressed=self.base.suppressed,
        )
