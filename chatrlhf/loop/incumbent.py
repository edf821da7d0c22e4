"""The live version's reward model beside a new one, on rankings that neither was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from chatrlhf.loop import gates
from chatrlhf.loop.gates import Comparison
from chatrlhf.models.adapter_files import Component
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.reward_model import RewardModel, ScalarHead
from chatrlhf.models.reward_terms import RANKING, RewardTerms
from chatrlhf.training.reward import ranking_features
from chatrlhf.training.reward_data import RankingExample
from chatrlhf.training.reward_head import Heads

_ADAPTER = "incumbent"


@dataclass(frozen=True)
class Incumbent:
    """The live version's reward model, and the newest ranking that it may have been fitted on."""

    component: Component
    last_ranking_id: int

    def compared(
        self,
        base: BaseModel,
        bank: LoraBank,
        examples: Sequence[RankingExample],
        judged: Sequence[RankingExample],
        scores: Sequence[Tensor],
    ) -> Comparison | None:
        """Compare the ranking terms on rankings of prompts that are newer than this one.

        None where it has no ranking term, or such prompts are too few to tell.

        Args:
            base: the base model.
            bank: gets an adapter for as long as this takes.
            examples: all rankings.
            judged: the rankings that the new reward model was judged on.
            scores: its scores of their replies, (K,) each, from heads that never saw the prompt.

        Raises:
            VersionError: its tensors do not fit.
        """
        seen = {one.prompt_key for one in examples if one.ranking_id <= self.last_ranking_id}
        fresh = [place for place, one in enumerate(judged) if one.prompt_key not in seen]
        theirs = [judged[place] for place in fresh]
        if len({one.prompt_key for one in theirs}) < gates.LEAST_COMPARED_PROMPTS:
            return None
        old = self.scores(base, bank, theirs)
        if old is None:
            return None
        return gates.compare(theirs, [scores[place] for place in fresh], old)

    def scores(
        self, base: BaseModel, bank: LoraBank, examples: Sequence[RankingExample]
    ) -> list[Tensor] | None:
        """What its ranking term says of each ranking's replies, (K,) each; None without that term.

        Raises:
            VersionError: its tensors do not fit.
        """
        terms = RewardTerms.from_state(self.component.head, base.hidden_size)
        term = terms.terms.get(RANKING)
        if term is None or term.heads is None:
            return None
        heads = Heads(terms.scale, term.heads)
        return [heads.scores(own) for own in self._features(base, bank, examples)]

    def _features(
        self, base: BaseModel, bank: LoraBank, examples: Sequence[RankingExample]
    ) -> list[Tensor]:
        bank.add(_ADAPTER)
        try:
            bank.load_state(_ADAPTER, self.component.lora)
            model = RewardModel(base, bank, _ADAPTER, ScalarHead(base.hidden_size))
            return ranking_features(model, examples)
        finally:
            bank.remove(_ADAPTER)
