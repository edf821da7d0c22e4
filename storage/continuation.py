"""Where a conversation goes on when nobody says where."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from chatrlhf.errors import ConflictError
from storage.conversations import get_conversation, list_turns
from storage.database import Database
from storage.replies import RANKABLE


def choose_parent(db: Database, conversation_id: int) -> int | None:
    """The reply that the next turn continues from; None for the first turn.

    Of the newest turn with finished replies: the best of its active ranking (the owner's before
    another person's), else one of the complete ones, drawn by a hash of the turn's id, which is
    the same each time.

    Raises:
        ConflictError: replies of the newest turn still stream.
    """
    with db.snapshot():
        return _chosen_parent(db, conversation_id)


def _chosen_parent(db: Database, conversation_id: int) -> int | None:
    owner = get_conversation(db, conversation_id).person_id
    turns = list_turns(db, conversation_id)
    if turns and any(reply.state == "streaming" for reply in turns[-1].replies):
        raise ConflictError(
            f"replies of turn {turns[-1].id} still stream; wait for them or cut them"
        )
    for turn in reversed(turns):
        finished = [reply.id for reply in turn.replies if reply.state in RANKABLE]
        if finished:
            best = db.rows(
                "SELECT reply_id FROM ranking_entries WHERE rank = 1 AND ranking_id = ("
                "SELECT id FROM rankings WHERE turn_id = ? AND state = 'active' "
                "ORDER BY person_id = ? DESC, id DESC LIMIT 1) ORDER BY reply_id",
                [turn.id, owner],
            )
            complete = [reply.id for reply in turn.replies if reply.state == "complete"]
            return _drawn(turn.id, [row["reply_id"] for row in best] or complete or finished)
    return None


def _drawn(turn_id: int, candidates: Sequence[int]) -> int:
    digest = hashlib.sha256(f"parent of turn {turn_id}".encode()).digest()
    return candidates[int.from_bytes(digest[:8], "big") % len(candidates)]
