"""``/api``: conversations, and how this server chats by default."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from storage import conversations
from storage.search import find_conversations
from ui.access import IdInPath, TheApp, ThePerson
from ui.api_turns import rated_turn_json
from ui.bodies import ChangeConversationBody, NewConversationBody
from ui.shapes import conversation_json

router = APIRouter(prefix="/api", tags=["chat"])

Words = Annotated[str, Query(max_length=200)]


@router.get("/chat/settings")
def chat_settings(app: TheApp, _person: ThePerson) -> dict[str, Any]:
    """What a turn gets where its request leaves something out, and the labels that are offered."""
    chat = app.settings.chat
    return {
        "replies": chat.replies,
        "temperature": chat.temperature,
        "top_p": chat.top_p,
        "max_new_tokens": chat.max_new_tokens,
        "ask": chat.ask,
        "ask_one_in": chat.ask_one_in,
        "labels": list(chat.labels),
    }


@router.post("/conversations")
def create_conversation(
    app: TheApp, person: ThePerson, body: NewConversationBody | None = None
) -> dict[str, Any]:
    """Start a conversation."""
    body = body or NewConversationBody()
    made = conversations.create_conversation(
        app.db, person.id, system_prompt=body.system_prompt, title=body.title
    )
    return conversation_json(made)


@router.get("/conversations")
def list_conversations(app: TheApp, person: ThePerson, search: Words = "") -> list[dict[str, Any]]:
    """The person's conversations, newest first, without their turns.

    With ``search`` those whose title, messages or replies hold each of its words; ``found`` then
    shows the first text that does.
    """
    if not search.strip():
        found = conversations.list_conversations(app.db, person.id)
        return [conversation_json(row) for row in found]
    return [
        {**conversation_json(hit.conversation), "found": hit.excerpt}
        for hit in find_conversations(app.db, person.id, search)
    ]


@router.get("/conversations/{conversation_id}")
def get_conversation(
    app: TheApp, person: ThePerson, conversation_id: IdInPath, *, reveal: bool = False
) -> dict[str, Any]:
    """A conversation with its turns, replies, rankings and demonstrations."""
    conversation = conversations.get_conversation(app.db, conversation_id, person.id)
    turns = conversations.list_turns(app.db, conversation_id)
    shown = [rated_turn_json(app, person, turn, reveal=reveal) for turn in turns]
    return {**conversation_json(conversation), "turns": shown}


@router.patch("/conversations/{conversation_id}")
def change_conversation(
    app: TheApp, person: ThePerson, conversation_id: IdInPath, body: ChangeConversationBody
) -> dict[str, Any]:
    """Give a conversation another title or, before its first turn, another system prompt."""
    changed = conversations.get_conversation(app.db, conversation_id, person.id)
    if body.system_prompt is not None:
        changed = conversations.set_system_prompt(
            app.db, conversation_id, body.system_prompt, person.id
        )
    if body.title is not None:
        changed = conversations.rename_conversation(app.db, conversation_id, body.title, person.id)
    return conversation_json(changed)


@router.delete("/conversations/{conversation_id}")
def delete_conversation(
    app: TheApp, person: ThePerson, conversation_id: IdInPath
) -> dict[str, Any]:
    """Erase a conversation with all its replies and rankings."""
    conversations.get_conversation(app.db, conversation_id, person.id)
    app.cancel_conversation(conversation_id)
    conversations.delete_conversation(app.db, conversation_id, person.id)
    return {"deleted": conversation_id}
