"""A story told over the API that calls every route, for the examples of the OpenAPI document.

A new route: add a call where it fits, then run ``python tests/support/api_examples.py``. A GET
without an example is called by itself at the end, where its parameters are known.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi.testclient import TestClient

from chatrlhf.app import App
from chatrlhf.loop.progress import RunProgress
from chatrlhf.loop.sentences import say
from storage import runs
from storage.records import Metric, Sample

PAIR = {"prompt": "What is tea?", "chosen": "A drink made of leaves.", "rejected": "No idea."}


class Story:
    """Calls that were made: by route, what was sent and what came."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.routes = {
            (method.upper(), path)
            for path, operations in client.app.openapi()["paths"].items()
            for method in operations
        }
        self.calls: dict[str, list[dict[str, Any]]] = {}
        self.answers: dict[str, list[Any]] = {}
        self.known: dict[str, Any] = {}

    def call(
        self, method: str, route: str, summary: str = "", body: Any = None, *, query: str = "",
        **values: Any,
    ) -> Any:  # fmt: skip
        """Make a call and keep it, with its ``summary`` as an example; what it answered."""
        assert (method, route) in self.routes, f"there is no {method} {route}"
        self.known |= values
        path = route.format(**values) + (f"?{query}" if query else "")
        if isinstance(body, str):
            answer = self.client.request(method, path, content=body.encode())
        else:
            answer = self.client.request(method, path, json=body)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        key = f"{method} {route}"
        media_type = answer.headers["content-type"].split(";")[0]
        is_json = media_type == "application/json"
        content = answer.json() if is_json else answer.text
        if is_json:
            self.answers.setdefault(key, []).append(content)
        if summary or key not in self.calls:
            kept = self.calls.setdefault(key, [])
            kept.append(
                {
                    "name": f"example{len(kept) + 1}",
                    "summary": summary or "As it stands",
                    "path": path,
                    "request": body,
                    "media_type": media_type,
                    "response": content,
                }
            )
        return content


def tell(client: TestClient, app: App) -> Story:
    """The story; every answer in it is a success."""
    story = Story(client)
    call = story.call
    call("GET", "/api/health", "An idle server")
    chat = _chat(story)
    _ratings(story, chat)
    _data(story)
    _training(story, app)
    _openai(story)
    _evidence(story)
    _the_rest(story)
    _people(story)
    return story


def _chat(story: Story) -> dict[str, Any]:
    call = story.call
    made = call("POST", "/api/conversations", "With a system prompt",
                {"system_prompt": "Be brief."})  # fmt: skip
    conversation = made["id"]
    route = "/api/conversations/{conversation_id}"
    turn = call("POST", f"{route}/turns", "Two replies, which a seed makes again",
                {"text": "What is tea?", "replies": 2, "seed": 7, "temperature": 0.8},
                conversation_id=conversation)  # fmt: skip
    call("PATCH", route, "Another title", {"title": "About tea"}, conversation_id=conversation)
    call("GET", "/api/conversations", "All of one's own")
    call("GET", "/api/turns/{turn_id}", "Not ranked: who wrote what is hidden",
         turn_id=turn["turn_id"])  # fmt: skip
    call("GET", "/api/turns/{turn_id}/events", "A turn that has ended", turn_id=turn["turn_id"])
    call("POST", "/api/turns/{turn_id}/cancel", "Nothing streams any more",
         turn_id=turn["turn_id"])  # fmt: skip
    reply = turn["replies"][0]["id"]
    call("POST", "/api/replies/{reply_id}/cancel", "It has ended", reply_id=reply)
    call("GET", route, "With its turns", conversation_id=conversation)
    return turn


def _ratings(story: Story, turn: dict[str, Any]) -> None:
    call = story.call
    first, second = (str(reply["id"]) for reply in turn["replies"])
    turn_id, reply_id = turn["turn_id"], int(first)
    call("POST", "/api/replies/{reply_id}/labels", "It is wrong", {"label": "wrong", "value": True},
         reply_id=reply_id)  # fmt: skip
    call("POST", "/api/replies/{reply_id}/labels", "", {"label": "too-long", "value": True},
         reply_id=reply_id)  # fmt: skip
    call("DELETE", "/api/replies/{reply_id}/labels/{label}", "Take a label back",
         reply_id=reply_id, label="too-long")  # fmt: skip
    ranking = "/api/turns/{turn_id}/ranking"
    made = call("POST", ranking, "The second is best",
                {"ranks": {first: 2, second: 1}, "strength": 3, "comment": "Shorter",
                 "idempotency_key": "one"}, turn_id=turn_id)  # fmt: skip
    call("GET", "/api/turns/{turn_id}", "Ranked: version, seed and score are told", turn_id=turn_id)
    one = "/api/rankings/{ranking_id}"
    revised = call("PUT", one, "A tie", {"ranks": {first: 1, second: 1}},
                   ranking_id=made["ranking_id"])  # fmt: skip
    undone = call("DELETE", one, "Undo the revision", ranking_id=revised["ranking_id"])
    active = undone["ranking"]["ranking_id"]
    call("GET", one, "One of them", ranking_id=active)
    call("GET", one, "With all that belongs to it", query="details=true", ranking_id=active)
    call("GET", "/api/rankings", "The newest that speak of tea", query="before_id=0&q=tea")
    call("GET", "/api/rankings/count", "With a comment", query="commented=true")
    call("GET", "/api/rankings/choices", "One person, one version")
    call("DELETE", one, "Withdraw", query="mode=withdraw", ranking_id=active)
    call("POST", one + "/restore", "Count it again", ranking_id=active)
    written = call("POST", "/api/turns/{turn_id}/demonstration", "A reply of one's own",
                   {"text": "Leaves in hot water."}, turn_id=turn_id)  # fmt: skip
    call("GET", "/api/demonstrations", "That speak of leaves", query="q=leaves")
    call("GET", "/api/demonstrations/count", "All of one's own")
    single = "/api/demonstrations/{demonstration_id}"
    call("GET", single, "One of them", demonstration_id=written["demonstration_id"])
    changed = call("PUT", single, "Another text", {"text": "Leaves in boiling water."},
                   demonstration_id=written["demonstration_id"])  # fmt: skip
    call("DELETE", single, "Erase it", demonstration_id=changed["demonstration_id"])
    prompts = {"prompts": [{"text": "What is a quokka?", "tags": ["animals"]}]}
    call("POST", "/api/prompts", "One with a tag", prompts)
    written = {"text": "It rained all day.", "template": "rewrite", "fields": {"manner": "funny"}}
    call("POST", "/api/prompts", "By a task template", {"prompts": [written]})
    call("GET", "/api/prompts", "The first two", query="limit=2")
    _queue(story)
    messages = [{"role": "user", "content": "Hi"}]
    call("POST", "/api/versions/{name}/promote", "Make v1 live", name="v1")
    call("POST", "/api/reward/score", "Two replies to a greeting",
         {"messages": messages, "replies": ["Hello", "Go away"]})  # fmt: skip


def _queue(story: Story) -> None:
    call = story.call
    (prompt,) = call("GET", "/api/prompts", "With a tag", query="tag=animals")
    single = "/api/prompts/{prompt_id}"
    call("PATCH", single, "Other tags", {"tags": ["animals", "easy"]}, prompt_id=prompt["id"])
    call("DELETE", single, "Out of the pool", prompt_id=prompt["id"])
    call("POST", single + "/restore", "Back again", prompt_id=prompt["id"])
    call("GET", "/api/prompts/tags", "The most frequent first")
    call("GET", "/api/prompts/templates", "All of them")
    call("POST", "/api/prompts/import", "A line of three is wrong",
         "text,tags\nWhat is a yak?,animals\n,animals\n", query="name=prompts.csv")  # fmt: skip
    call("GET", "/api/queue/settings", "As it stands")
    call("PUT", "/api/queue/settings", "Nothing made ahead", {"ahead": 0, "overlap": 1})
    turn = story.client.get("/api/queue/next").json()["turn"]
    call("GET", "/api/turns/{turn_id}/events", turn_id=turn["turn_id"])  # until they are written
    turn = call("GET", "/api/queue/next", "A prompt whose replies are written")["turn"]
    call("POST", "/api/queue/skip", "With a reason",
         {"turn_id": turn["turn_id"], "reason": "I cannot judge it"})  # fmt: skip
    call("DELETE", "/api/queue/skip/{turn_id}", "Take it back", turn_id=turn["turn_id"])
    call("DELETE", "/api/queue/skip", "Nothing else was skipped")
    call("PUT", "/api/queue/goal", "Thirty a day", {"goal": 30})
    call("GET", "/api/queue/goal", "As it stands")
    ranks = {str(reply["id"]): place for place, reply in enumerate(turn["replies"], start=1)}
    call("POST", "/api/turns/{turn_id}/ranking", "A turn of the queue", {"ranks": ranks},
         turn_id=turn["turn_id"])  # fmt: skip
    call("GET", "/api/queue/stats", "After one rating", query="utc_offset_minutes=60")


def _data(story: Story) -> None:
    call = story.call
    body = json.dumps(PAIR) + '\n{"tea": 1}\n'
    report = call("POST", "/api/import", "Two lines, of which one is refused", body,
                  query="name=pairs.jsonl")  # fmt: skip
    call("GET", "/api/export", "Each pair that a ranking orders", query="format=trl")
    call("GET", "/api/export/size", "Of the same", query="format=trl")
    call("GET", "/api/imports", "The newest first")
    call("POST", "/api/imports/{import_id}/undo", "Take it back", import_id=report["import_id"])


def _training(story: Story, app: App) -> None:
    call = story.call
    call("GET", "/api/versions", "Two, of which v1 is live")
    call("GET", "/api/versions/{name}", "One of them", name="v0")
    call("POST", "/api/versions/rollback", "Back to v0")
    call("POST", "/api/trainer/pause", "No further rounds")
    asked = call("POST", "/api/rounds", "Only the reward model and PPO",
                 {"stages": ["reward", "ppo"]})  # fmt: skip
    run = asked["id"]
    claimed = runs.claim_run(app.db, "worker", 1, "boot")
    assert claimed is not None
    resumed = say("PPO goes on at iteration {iteration}.", iteration=3)
    RunProgress(app.db, claimed).event("info", resumed)
    runs.add_event(app.db, run, "error", "Attempt 1 of 3: the trainer ended with code 9.")
    runs.add_metrics(app.db, run, claimed.fence, [Metric("ppo", 1, "score", 0.25)])
    sample = Sample("ppo", 1, "What is tea?", "A drink.", 0.5, terms={"ranking": 0.5})
    runs.add_samples(app.db, run, claimed.fence, [sample])
    call("GET", "/api/rounds", "The newest first")
    one = "/api/rounds/{run_id}"
    call("GET", one, "One that runs", run_id=run)
    call("GET", f"{one}/metrics", "Its numbers so far", run_id=run)
    call("GET", f"{one}/events", "Its timeline", run_id=run)
    call("GET", f"{one}/samples", "What the policy said", run_id=run)
    call("POST", f"{one}/cancel", "End it", run_id=run)
    call("POST", "/api/trainer/resume", "Rounds again")


def _openai(story: Story) -> None:
    call = story.call
    call("GET", "/v1/models", "The live version and all others")
    call("GET", "/v1/models/{name}", "The live version", name="chatrlhf")
    messages = [{"role": "user", "content": "What is tea?"}]
    call("POST", "/v1/chat/completions", "One reply",
         {"model": "chatrlhf", "messages": messages, "seed": 7, "max_tokens": 16})  # fmt: skip


def _evidence(story: Story) -> None:
    call = story.call
    call("POST", "/api/versions/compare", "Two versions answer a prompt",
         {"versions": ["v0", "v1"], "text": "What is tea?", "seed": 7})  # fmt: skip
    call("POST", "/api/versions/gc", "Which files would go", {"keep": 5})


def _people(story: Story) -> None:
    """Accounts; from the first one on, everybody signs in."""
    call = story.call
    ann = {"name": "Ann", "password": "four words of Ann"}
    call("POST", "/api/people", "The first account, an admin's", {**ann, "role": "admin"})
    call("POST", "/api/session", "Sign in; the cookie is in the headers", ann)
    bob = call("POST", "/api/people", "Another person",
               {"name": "Bob", "password": "four words of Bob", "role": "rater"})  # fmt: skip
    call("PATCH", "/api/people/{person_id}", "May train from now on", {"role": "trainer"},
         person_id=bob["id"])  # fmt: skip
    made = call("POST", "/api/invitations", "A link for a rater",
                {"role": "rater", "note": "for Cleo", "days": 7})  # fmt: skip
    call("POST", "/api/invitations/read", "What it offers", {"secret": made["secret"]})
    other = call("POST", "/api/invitations", "", {"role": "reader"})
    call("DELETE", "/api/invitations/{invitation_id}", "Withdraw it", invitation_id=other["id"])
    key = call("POST", "/api/me/keys", "For a script", {"name": "script"})
    call("GET", "/api/me/keys")
    call("DELETE", "/api/me/keys/{key_id}", "It is lost", key_id=key["id"])
    for route in ("/api/me", "/api/people", "/api/invitations", "/api/audit/verify"):
        call("GET", route)
    call("GET", "/api/audit", "The newest entries", query="limit=2")
    call("PUT", "/api/me/password", "Another password",
         {"old": ann["password"], "new": "five words of Ann's own"})  # fmt: skip
    ann["password"] = "five words of Ann's own"
    call("POST", "/api/session", "", ann)
    own = call("GET", "/api/me/sessions")
    call("DELETE", "/api/me/sessions/{session_id}", "End a session", session_id=own[0]["id"])
    call("POST", "/api/session", "", ann)
    call("DELETE", "/api/people/{person_id}", "With all that is theirs", person_id=bob["id"])
    call("POST", "/api/invitations/accept", "The invited person's account",
         {"secret": made["secret"], "name": "Cleo", "password": "four words of Cleo"})  # fmt: skip
    for route in ("POST /api/invitations/read", "POST /api/invitations/accept"):
        story.calls[route][-1]["request"]["secret"] = "..."
    call("DELETE", "/api/session", "Sign out")
    call("POST", "/api/session", "", ann)
    call("DELETE", "/api/me/sessions", "Sign out everywhere")


def _the_rest(story: Story) -> None:
    """What the story has not called yet and can be called as it stands; erasing comes last."""
    story.call("GET", "/api/conversations", "")
    for method, route in sorted(story.routes):
        if method != "GET" or f"GET {route}" in story.calls:
            continue
        try:
            story.call(method, route, **{
                name: story.known[name]
                for name in _placeholders(route)
            })  # fmt: skip
        except (KeyError, AssertionError):
            continue  # the test of the document names it
    conversation = {"conversation_id": story.known["conversation_id"]}
    story.call("DELETE", "/api/conversations/{conversation_id}", "Erase it", **conversation)


def _placeholders(route: str) -> list[str]:
    return [part[1:-1] for part in route.split("/") if part.startswith("{")]
