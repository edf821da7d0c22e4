"""Rows as JSON: the shapes that the API answers with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from storage.imports import Import
from storage.ratings import FoundDemonstration, FoundRanking
from storage.records import (
    Choice,
    Conversation,
    Demonstration,
    Label,
    Metric,
    Ranking,
    Reply,
    Run,
    Turn,
    Version,
)


def conversation_json(conversation: Conversation) -> dict[str, Any]:
    """A conversation without its turns."""
    return {
        "id": conversation.id,
        "title": conversation.title,
        "system_prompt": conversation.system_prompt,
        "created_at": conversation.created_at,
    }


def reply_json(reply: Reply, *, reveal: bool, is_ranked: bool) -> dict[str, Any]:
    """A reply; who made it only when revealed or ranked, because ratings are blind.

    Why it is shown, which tells how it scored, only when the person has ranked it: a ranking that
    knew the score would teach the reward model its own opinion.
    """
    shown = {
        "id": reply.id,
        "position": reply.position,
        "text": reply.text,
        "state": reply.state,
        "finish_reason": reply.finish_reason,
    }
    if reveal or is_ranked:
        shown |= {"version": reply.version, "seed": reply.seed, "sampling": reply.sampling}
    if is_ranked:
        shown |= {"slot_type": reply.slot_type, "candidate": reply.candidate}
        shown |= {"score": reply.score, "propensity": reply.propensity}
    return shown


def choice_json(choice: Choice, *, is_ranked: bool) -> dict[str, Any]:
    """What the replies of a turn were chosen from; the scores only when they are ranked."""
    shown = {"policy": choice.policy, "candidates": choice.candidates, "note": choice.note}
    if is_ranked:
        shown |= {"version": choice.version, "scores": list(choice.scores)}
    return shown


def turn_json(
    turn: Turn,
    *,
    reveal: bool,
    ranking: Ranking | None = None,
    demonstration: Demonstration | None = None,
    labels: Mapping[int, Mapping[str, bool]] | None = None,
) -> dict[str, Any]:
    """A turn with its replies and what the person made of them; ``labels`` by reply id."""
    is_ranked = ranking is not None
    labelled = labels or {}
    choice = turn.choice
    return {
        "turn_id": turn.id,
        "conversation_id": turn.conversation_id,
        "parent_reply_id": turn.parent_reply_id,
        "text": turn.text,
        "created_at": turn.created_at,
        "replies": [
            {
                **reply_json(reply, reveal=reveal, is_ranked=is_ranked),
                "labels": dict(labelled.get(reply.id, {})),
            }
            for reply in turn.replies
        ],
        "choice": None if choice is None else choice_json(choice, is_ranked=is_ranked),
        "ranking": None if ranking is None else ranking_json(ranking),
        "demonstration": None if demonstration is None else demonstration_json(demonstration),
    }


def ranking_json(ranking: Ranking) -> dict[str, Any]:
    """A ranking; ``ranks`` by reply id, as strings since JSON knows no other keys."""
    return {
        "ranking_id": ranking.id,
        "turn_id": ranking.turn_id,
        "ranks": {str(reply_id): rank for reply_id, rank in ranking.ranks.items()},
        "order": ranking.order,
        "comparisons": ranking.comparisons,
        "strength": ranking.strength,
        "comment": ranking.comment,
        "all_bad": ranking.all_bad,
        "state": ranking.state,
        "revision": ranking.revision_of is not None,
        "created_at": ranking.created_at,
    }


def found_ranking_json(found: FoundRanking) -> dict[str, Any]:
    """A ranking with what a list shows of it."""
    return {
        **ranking_json(found.ranking),
        "person": found.person,
        "conversation_id": found.conversation_id,
        "prompt": found.prompt,
        "best": found.best,
        "versions": list(found.versions),
        "labels": list(found.labels),
    }


def label_json(label: Label) -> dict[str, Any]:
    """What a person says of a reply."""
    return {"reply_id": label.reply_id, "label": label.label, "value": label.value}


def found_demonstration_json(found: FoundDemonstration) -> dict[str, Any]:
    """A demonstration with the conversation that it answers."""
    return {
        **demonstration_json(found.demonstration),
        "person": found.person,
        "conversation_id": found.conversation_id,
        "messages": [dataclasses.asdict(message) for message in found.demonstration.messages],
    }


def import_json(one: Import) -> dict[str, Any]:
    """An import; ``report`` is what it told at its end."""
    fields = dataclasses.asdict(one)
    del fields["id"], fields["person_id"]
    return {"import_id": one.id, **fields}


def demonstration_json(demonstration: Demonstration) -> dict[str, Any]:
    """A reply that a person wrote."""
    return {
        "demonstration_id": demonstration.id,
        "turn_id": demonstration.turn_id,
        "text": demonstration.text,
        "created_at": demonstration.created_at,
    }


def version_json(version: Version, *, live: str | None, previous: str | None) -> dict[str, Any]:
    """A version, and whether an alias names it."""
    return {
        "name": version.name,
        "parent": version.parent,
        "state": version.state,
        "run_id": version.run_id,
        "metrics": version.metrics,
        "note": version.note,
        "manifest_sha256": version.manifest_sha256,
        "erased_rankings": version.erased_rankings,
        "created_at": version.created_at,
        "live": version.name == live,
        "previous": version.name == previous,
    }


def metric_json(metric: Metric) -> dict[str, Any]:
    """One number of a round; null where it is not finite, which JSON cannot say."""
    value = metric.value if math.isfinite(metric.value) else None
    return {**dataclasses.asdict(metric), "value": value}


def round_json(run: Run) -> dict[str, Any]:
    """A round of the trainer; its lease is the trainer's own business."""
    fields = dataclasses.asdict(run)
    for private in ("owner", "fence", "heartbeat"):
        del fields[private]
    return fields
