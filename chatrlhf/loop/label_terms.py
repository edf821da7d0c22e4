"""Which labels become terms of the reward, and what the timeline says of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chatrlhf.loop.progress import RunProgress
from chatrlhf.loop.sentences import Sentence, say
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
        obstacle = _obstacle(name, examples, settings)
        if obstacle is None:
            found[name] = examples
        elif class_counts(examples)[0]:
            progress.event("info", obstacle)
    return found


def tell_label(name: str, fit: LabelFit, weight: float, progress: RunProgress) -> None:
    """Say how well a label was learned, and whether it is used."""
    learned = say(
        'The label "{name}", learned from {positives} replies that have it and {negatives} that '
        "have not, tells unseen replies apart with an area under the curve of {area}; chance stays "
        "below {needed}.",
        name=name,
        positives=fit.positives,
        negatives=fit.negatives,
        area=f"{fit.area:.2f}",
        needed=f"{min(fit.needed, 1.0):.2f}",
    )
    verdict = (
        say("It is used with weight {weight}.", weight=f"{weight:g}")
        if fit.is_better_than_chance
        else say("So it is not used. Label replies to more prompts.")
    )
    progress.event("info", learned, verdict)
    progress.metrics(0, {f"area_of_{name}": fit.area})


def _obstacle(
    name: str, examples: Sequence[LabelExample], settings: RewardSettings
) -> Sentence | None:
    if not settings.weights.get(LABEL + name):
        return say(
            'Replies were labelled "{name}", but reward.weights has no weight for {term}, so it is '
            "not used.",
            name=name,
            term=f"{LABEL}{name}",
        )
    positives, negatives = class_counts(examples)
    if min(positives, negatives) < settings.minimum_labels:
        return say(
            'The label "{name}" is not used yet: {positives} replies have it and {negatives} are '
            "known not to; it needs {needed} of both.",
            name=name,
            positives=positives,
            negatives=negatives,
            needed=settings.minimum_labels,
        )
    return None
