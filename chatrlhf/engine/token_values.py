"""What a version expects of a reply after each of its tokens: the critic's values, for people.

A version that PPO made has its critic beside its reward model. Where there is none (PPO was not
run, or an older program wrote the version), the reward model itself reads each beginning of the
reply as if it ended there: a critic begins as just that.

Notation: L positions, D pooled features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from chatrlhf.engine.requests import ChatMessage, ReplyValues, TokenValue, TokenValues
from chatrlhf.engine.reward_scoring import Action, scoring_adapter
from chatrlhf.errors import ConflictError
from chatrlhf.models.adapter_files import REWARD, VALUE, AdapterFiles
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.detokenize import IncrementalDetokenizer
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.models.reward_terms import RewardTerms
from chatrlhf.models.scored_reply import context_and_reply


class TokenValuer:
    """Values of the tokens of replies, by the critic of the version ``name``, or its reward model.

    Raises:
        ConflictError: the version has neither.
        VersionError: its tensors do not fit the base.
    """

    def __init__(
        self, base: BaseModel, bank: LoraBank, dtype: torch.dtype, files: AdapterFiles, name: str
    ) -> None:
        self._base = base
        self._bank = bank
        self._dtype = dtype
        if critic := files.components.get(VALUE):
            self._by_critic, self._lora = True, critic.lora
            self._head = ScalarHead(base.hidden_size)
            self._head.load(critic.head)
        elif reward := files.components.get(REWARD):
            self._by_critic, self._lora = False, reward.lora
            self._head = RewardTerms.from_state(reward.head, base.hidden_size).linear_total()
        else:
            raise ConflictError(
                f"{name} has no reward model. Rank replies until a round makes a version with one."
            )

    def values(
        self,
        messages: Sequence[ChatMessage],
        replies: Sequence[str],
        longest: int,
        run: Callable[[Action], None],
    ) -> TokenValues:
        """Values of the tokens of replies; arguments as of `ReplyScorer.score`."""
        chat_format = self._base.chat_format
        found = []
        for text in replies:
            context, reply = context_and_reply(
                chat_format, messages, text, finished=False, longest=longest
            )
            # An empty reply would be read as its end alone.
            reply = [token for token in reply if token not in chat_format.end_token_ids]
            read: list[Tensor] = []
            run(partial(self._read, context, reply, read))
            # A token's value stands at its position; the one before all, at the context's end.
            before, *after = read[0][len(context) - 1 :].tolist()
            found.append(ReplyValues(before, self._tokens(reply, after)))
        return TokenValues("critic" if self._by_critic else "reward", tuple(found))

    def _tokens(self, reply: Sequence[int], values: Sequence[float]) -> tuple[TokenValue, ...]:
        detokenizer = IncrementalDetokenizer(self._base.chat_format.tokenizer)
        texts = [detokenizer.add(token) for token in reply]
        if rest := detokenizer.finish():
            texts[-1] += rest
        return tuple(map(TokenValue, texts, values))

    @torch.inference_mode()
    def _read(self, context: Sequence[int], reply: Sequence[int], found: list[Tensor]) -> None:
        """Append the values of all positions of one conversation, (L,) on the CPU."""
        device = self._base.device
        token_ids = torch.tensor([[*context, *reply]], device=device)
        is_reply = torch.arange(token_ids.shape[1], device=device)[None] >= len(context)
        with scoring_adapter(self._bank, self._lora, self._dtype) as adapter:
            model = RewardModel(self._base, self._bank, adapter, self._head)
            found.append(model.head(model.pooled(token_ids, is_reply))[0].float().cpu())
