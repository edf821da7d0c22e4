"""Who may do what: the least role of every route, and which requests the audit log records.

A server with a route that is not named here does not start, so none can be forgotten. A role may do
all that the roles before it may: a reader chats and looks, a rater's feedback is trained on, a
trainer changes what is live, an admin changes who may do so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from storage.people import ROLES

Needed = Literal["nobody", "reader", "rater", "trainer", "admin"]

# "nobody" needs no login at all. A MOUNT stands for all below its path, whatever the method.
LEAST_ROLES: dict[Needed, str] = {
    "nobody": """
        GET /login
        MOUNT /login
        GET /api/health
        POST /api/session
        POST /api/invitations/read
        POST /api/invitations/accept
        GET /manifest.json
    """,
    "reader": """
        MOUNT /
        MOUNT /board
        MOUNT /api
        MOUNT /v1
        GET /api/openapi.json
        GET /api/me
        PUT /api/me/password
        GET /api/me/sessions
        DELETE /api/me/sessions
        DELETE /api/me/sessions/{session_id}
        GET /api/me/keys
        POST /api/me/keys
        DELETE /api/me/keys/{key_id}
        DELETE /api/session
        GET /api/conversations
        POST /api/conversations
        GET /api/conversations/{conversation_id}
        PATCH /api/conversations/{conversation_id}
        DELETE /api/conversations/{conversation_id}
        POST /api/conversations/{conversation_id}/turns
        GET /api/turns/{turn_id}
        GET /api/turns/{turn_id}/events
        POST /api/turns/{turn_id}/cancel
        POST /api/replies/{reply_id}/cancel
        GET /api/rankings
        GET /api/rankings/{ranking_id}
        GET /api/prompts
        GET /api/prompts/tags
        GET /api/prompts/templates
        GET /api/queue/stats
        GET /api/queue/goal
        GET /api/queue/settings
        GET /api/versions
        GET /api/versions/{name}
        GET /api/rounds
        GET /api/rounds/{run_id}
        GET /api/rounds/{run_id}/metrics
        GET /api/rounds/{run_id}/events
        GET /api/rounds/{run_id}/samples
        GET /api/evidence
        GET /api/evidence/then-and-now
        POST /api/evidence/replays
        POST /api/versions/compare
        POST /api/reward/score
        POST /api/reward/explain
        GET /api/export
        GET /v1/models
        GET /v1/models/{name}
        POST /v1/chat/completions
        GET /api/rankings/count
        GET /api/rankings/choices
        GET /api/demonstrations
        GET /api/demonstrations/count
        GET /api/demonstrations/{demonstration_id}
        GET /api/export/size
        GET /api/imports
        GET /api/chat/settings
    """,
    "rater": """
        POST /api/turns/{turn_id}/ranking
        PUT /api/rankings/{ranking_id}
        DELETE /api/rankings/{ranking_id}
        POST /api/turns/{turn_id}/demonstration
        POST /api/replies/{reply_id}/labels
        POST /api/import
        POST /api/rankings/{ranking_id}/restore
        PUT /api/demonstrations/{demonstration_id}
        DELETE /api/demonstrations/{demonstration_id}
        POST /api/imports/{import_id}/undo
        DELETE /api/replies/{reply_id}/labels/{label}
        GET /api/queue/next
        POST /api/queue/skip
        DELETE /api/queue/skip
        DELETE /api/queue/skip/{turn_id}
        PUT /api/queue/goal
    """,
    "trainer": """
        POST /api/prompts
        POST /api/prompts/import
        PATCH /api/prompts/{prompt_id}
        DELETE /api/prompts/{prompt_id}
        POST /api/prompts/{prompt_id}/restore
        PUT /api/queue/settings
        POST /api/rounds
        POST /api/rounds/{run_id}/cancel
        POST /api/versions/rollback
        POST /api/versions/{name}/promote
        GET /api/versions/{name}/export
        POST /api/versions/gc
        POST /api/trainer/pause
        POST /api/trainer/resume
    """,
    "admin": """
        GET /api/people
        POST /api/people
        PATCH /api/people/{person_id}
        DELETE /api/people/{person_id}
        GET /api/invitations
        POST /api/invitations
        DELETE /api/invitations/{invitation_id}
        GET /api/audit
        GET /api/audit/verify
    """,
}

# What storage does not record itself. The detail is the path's parameters.
AUDITED: dict[str, str] = {
    "DELETE /api/conversations/{conversation_id}": "delete_conversation",
    "DELETE /api/rankings/{ranking_id}": "undo_ranking",
    "GET /api/export": "export",
    "POST /api/prompts": "add_prompts",
    "POST /api/prompts/import": "import_prompts",
    "PATCH /api/prompts/{prompt_id}": "change_prompt",
    "DELETE /api/prompts/{prompt_id}": "delete_prompt",
    "POST /api/prompts/{prompt_id}/restore": "restore_prompt",
    "PUT /api/queue/settings": "change_queue",
    "POST /api/rounds": "request_round",
    "POST /api/versions/gc": "remove_old_versions",
    "GET /api/versions/{name}/export": "export_version",
    "POST /api/trainer/pause": "pause_trainer",
    "POST /api/trainer/resume": "resume_trainer",
}


@dataclass(frozen=True)
class Rule:
    """Who may use a route, and the action that the audit log calls it, if it records it."""

    needed: Needed
    audited: str = ""

    def allows(self, role: str) -> bool:
        """Whether a person of this role may use the route."""
        return self.needed == "nobody" or ROLES.index(role) >= ROLES.index(self.needed)


def _rules() -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for needed, routes in LEAST_ROLES.items():
        for route in filter(None, map(str.strip, routes.splitlines())):
            assert route not in found, f"{route} has two roles"
            found[route] = Rule(needed, AUDITED.get(route, ""))
    return found


RULES = _rules()
