"""Rows as JSON: the shapes that the API answers with."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from storage.records import Conversation, Demonstration, Metric, Ranking, Reply, Run, Turn, Version


def conversation_json(conversation: Conversation) -> dict[str, Any]:
    """A conversation without its turns."""
    return {
        "id": conversation.id,
        "title": conversation.title,
        "system_prompt": conversation.system_prompt,
        "created_at": conversation.created_at,
    }


def reply_json(reply: Reply, *, reveal: bool) -> dict[str, Any]:
    """A reply; who made it only when revealed, because ratings are blind."""
    shown = {
        "id": reply.id,
        "position": reply.position,
        "text": reply.text,
        "state": reply.state,
        "finish_reason": reply.finish_reason,
    }
    if reveal:
        made = {"version": reply.version, "seed": reply.seed, "sampling": reply.sampling}
        shown |= {**made, "slot_type": reply.slot_type}
    return shown


def turn_json(
    turn: Turn,
    *,
    reveal: bool,
    ranking: Ranking | None = None,
    demonstration: Demonstration | None = None,
) -> dict[str, Any]:
    """A turn with its replies and what the person made of them."""
    return {
        "turn_id": turn.id,
        "conversation_id": turn.conversation_id,
        "parent_reply_id": turn.parent_reply_id,
        "text": turn.text,
        "created_at": turn.created_at,
        "replies": [reply_json(reply, reveal=reveal) for reply in turn.replies],
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
