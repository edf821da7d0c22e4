"""Which labels become terms of the reward, and what the timeline says of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chatrlhf.loop.progress import RunProgress
from chatrlhf.models.reward_terms import LABEL
from chatrlhf.settings import RewardSettings
from chatrlhf.training.label_head import LabelFit, class_counts
from chatrlhf.training.reward_data import LabelExample


def usable_labels(
    labels: Mapping[str, Sequence[LabelExample]], settings: RewardSettings, progress: RunProgress
) -> dict[str, Sequence[LabelExample]]:
    """The labels that have a weight and enough replies of both classes.

    What keeps a label out is said, but for labels that nobody gave: rankings alone say of replies
    that they are not bad.
    """
    found: dict[str, Sequence[LabelExample]] = {}
    for name, examples in labels.items():
        text = _obstacle(name, examples, settings)
        if text is None:
            found[name] = examples
        elif class_counts(examples)[0]:
            progress.event("info", text)
    return found


def tell_label(name: str, fit: LabelFit, weight: float, progress: RunProgress) -> None:
    """Say how well a label was learned, and whether it is used."""
    text = (
        f'The label "{name}", learned from {fit.positives} replies that have it and '
        f"{fit.negatives} that have not, tells unseen replies apart with an area under the curve "
        f"of {fit.area:.2f}; chance stays below {min(fit.needed, 1.0):.2f}"
    )
    if fit.is_better_than_chance:
        text += f": used with weight {weight:g}."
    else:
        text += ", so it is not used. Label replies to more prompts."
    progress.event("info", text)
    progress.metrics(0, {f"area_of_{name}": fit.area})


def _obstacle(name: str, examples: Sequence[LabelExample], settings: RewardSettings) -> str | None:
    if not settings.weights.get(LABEL + name):
        return (
            f'Replies were labelled "{name}", but reward.weights has no weight for {LABEL}{name}, '
            "so it is not used."
        )
    positives, negatives = class_counts(examples)
    if min(positives, negatives) < settings.minimum_labels:
        return (
            f'The label "{name}" is not used yet: {positives} replies have it and {negatives} are '
            f"known not to; it needs {settings.minimum_labels} of both."
        )
    return None
