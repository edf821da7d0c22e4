"""A reward as a weighted sum of terms, and how each is brought to one scale.

Notation: B replies, D pooled features, E members of an ensemble.

    total = sum over terms of weight * (raw - mean) / std,   minus   penalty * spread

Terms are ``ranking`` (E linear heads, whose mean counts), ``label:<name>`` (one linear head each)
and ``classifier`` (a model of its own). Mean and standard deviation are those over the reference
replies of a fit, so that weights, and PPO's KL coefficient, mean the same after every refit. The
spread is the standard deviation of the total over the members of the ensemble.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from chatrlhf.errors import VersionError
from chatrlhf.models.reward_model import POOL_SIZES, POOLS, ScalarHead

RANKING, CLASSIFIER, LABEL = "ranking", "classifier", "label:"
_LEAST_STD = 1e-4
_CONSTANT = 1e-6


@dataclass(frozen=True)
class FeatureScale:
    """What standardises features: their means over the replies of a fit, and factors, (D,) both.

    Afterwards a feature has the deviation that ``POOL_SIZES`` gives its pool; one that does not
    vary over those replies says nothing, and gets the factor 0.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor) -> FeatureScale:
        """The scale that standardises these rows, (M, D)."""
        std = features.std(0)
        sizes = torch.tensor(POOL_SIZES).repeat_interleave(features.shape[-1] // POOLS)
        return cls(features.mean(0), torch.where(std > _CONSTANT, sizes / std, 0.0))

    def __call__(self, features: Tensor) -> Tensor:
        """Standardised features, (..., D)."""
        return (features.float() - self.mean) * self.scale


@dataclass(frozen=True)
class Term:
    """One term of the reward.

    ``heads`` (E, D) are the linear maps of its members; None where the raw value is that of the
    external classifier. ``means`` (E,) are the members' means over the reference replies, and
    ``std`` () the deviation of their average there.
    """

    weight: float
    heads: Tensor | None
    means: Tensor
    std: Tensor

    @classmethod
    def linear(cls, weight: float, heads: Tensor) -> Term:
        """Linear heads (E, D), not normalised yet."""
        return cls(weight, heads, torch.zeros(len(heads)), torch.ones(()))

    @classmethod
    def external(cls, weight: float) -> Term:
        """The external classifier, not normalised yet."""
        return cls(weight, None, torch.zeros(1), torch.ones(()))

    def normalised(self, raw: Tensor) -> Term:
        """The term with mean 0 and deviation 1 over these raw values, (B, E)."""
        std = raw.mean(-1).std().clamp(min=_LEAST_STD)
        return dataclasses.replace(self, means=raw.mean(0), std=std)

    def members(self, raw: Tensor) -> Tensor:
        """Normalised values of raw ones, (B, E)."""
        return (raw - self.means) / self.std


@dataclass(frozen=True)
class TermScores:
    """What each term says of B replies.

    ``values`` maps a term to its normalised values (B,), before the weight. ``spread`` (B,) is
    how far the members of the ensemble are apart, in units of the total.
    """

    values: dict[str, Tensor]
    weights: dict[str, float]
    spread: Tensor
    penalty: float

    @property
    def contributions(self) -> dict[str, Tensor]:
        """What each term adds to the total, (B,) each; the penalty of the spread among them."""
        found = {name: self.weights[name] * value for name, value in self.values.items()}
        if self.penalty:
            found["spread"] = -self.penalty * self.spread
        return found

    @property
    def total(self) -> Tensor:
        """The reward, (B,)."""
        return torch.stack(list(self.contributions.values())).sum(0)


@dataclass(frozen=True)
class RewardTerms:
    """All terms of a reward, one at least; linear ones read features standardised by ``scale``."""

    scale: FeatureScale
    terms: dict[str, Term]
    penalty: float = 0.0

    def normalised(self, features: Tensor, classifier_logits: Tensor | None = None) -> RewardTerms:
        """The same terms, with mean 0 and deviation 1 each over these replies, at least two.

        Arguments are those of ``scores``.
        """
        terms = {
            name: self.terms[name].normalised(raw)
            for name, raw in self._raw(features, classifier_logits).items()
        }
        return dataclasses.replace(self, terms={**self.terms, **terms})

    def scores(self, features: Tensor, classifier_logits: Tensor | None = None) -> TermScores:
        """Score replies.

        Args:
            features: (B, D) pooled, under the reward model's adapter.
            classifier_logits: (B,) of the external classifier; None leaves its term out.
        """
        members = {
            name: self.terms[name].members(raw)
            for name, raw in self._raw(features, classifier_logits).items()
        }
        weights = {name: self.terms[name].weight for name in members}
        spread = torch.zeros(len(features))
        if RANKING in members:
            spread = (weights[RANKING] * members[RANKING]).std(-1, correction=0)
        values = {name: each.mean(-1) for name, each in members.items()}
        return TermScores(values, weights, spread, self.penalty)

    def linear_total(self) -> ScalarHead:
        """All linear terms as one head; what a critic can start from.

        It lacks the external classifier and the penalty of the spread, which are not linear in
        the features.
        """
        weight, bias = torch.zeros_like(self.scale.mean), torch.zeros(())
        for term in self.terms.values():
            if term.heads is not None:
                weight = weight + term.weight / term.std * term.heads.mean(0)
                bias = bias - term.weight / term.std * term.means.mean()
        head = ScalarHead(len(weight) // POOLS)
        head.load(
            {
                "weight": weight,
                "bias": bias,
                "feature_mean": self.scale.mean,
                "feature_scale": self.scale.scale,
            }
        )
        return head

    def state(self) -> dict[str, Tensor]:
        """Copies of all tensors and numbers, float32, by name; ``from_state`` reads them."""
        state = {
            "scale/mean": self.scale.mean,
            "scale/scale": self.scale.scale,
            "penalty": torch.tensor(self.penalty),
        }
        for name, term in self.terms.items():
            state[f"{name}/weight"] = torch.tensor(term.weight)
            state[f"{name}/means"] = term.means
            state[f"{name}/std"] = term.std
            if term.heads is not None:
                state[f"{name}/heads"] = term.heads
        return {key: tensor.detach().float().clone() for key, tensor in state.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], hidden_size: int) -> RewardTerms:
        """The terms that ``state`` was taken of.

        Raises:
            VersionError: a tensor is missing, unknown, of another shape or not finite.
        """
        reader = _StateReader(state, POOLS * hidden_size)
        names = sorted({key.rpartition("/")[0] for key in state} - {"scale", ""})
        scale = FeatureScale(reader.features("scale/mean"), reader.features("scale/scale"))
        terms = {name: reader.term(name) for name in names}
        penalty = float(reader.take("penalty", ()))
        reader.check_empty()
        return cls(scale, terms, penalty)

    def _raw(self, features: Tensor, classifier_logits: Tensor | None) -> dict[str, Tensor]:
        standardised = self.scale(features)
        found: dict[str, Tensor] = {}
        for name, term in sorted(self.terms.items()):
            if term.heads is not None:
                found[name] = standardised @ term.heads.T
            elif classifier_logits is not None:
                found[name] = classifier_logits[:, None]
        return found


class _StateReader:
    """Takes tensors out of a state, each once, checking that they fit."""

    def __init__(self, state: Mapping[str, Tensor], features: int) -> None:
        self._left = dict(state)
        self._features = features

    def take(self, key: str, shape: tuple[int, ...]) -> Tensor:
        if key not in self._left:
            raise VersionError(f"The reward model lacks {key}. It is of another program version.")
        tensor = self._left.pop(key)
        if tuple(tensor.shape) != shape:
            raise VersionError(
                f"{key} of the reward model has shape {tuple(tensor.shape)}; this base needs "
                f"{shape}. It was made for another base model."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise VersionError(f"{key} of the reward model holds values that are not finite.")
        return tensor

    def features(self, key: str) -> Tensor:
        return self.take(key, (self._features,))

    def term(self, name: str) -> Term:
        heads = self._left.get(f"{name}/heads")
        members = 1
        if heads is not None:
            members = len(heads) if heads.dim() == 2 else 0
            heads = self.take(f"{name}/heads", (members, self._features))
        weight = float(self.take(f"{name}/weight", ()))
        means = self.take(f"{name}/means", (members,))
        return Term(weight, heads, means, self.take(f"{name}/std", ()))

    def check_empty(self) -> None:
        if self._left:
            raise VersionError(
                f"The reward model has {next(iter(self._left))}, which this program does not know."
            )
