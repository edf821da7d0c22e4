// The chat screen: the conversation, the board of its newest turn, and the message field.

import { call, messageOf } from "./api.js";
import { Asking } from "./asking.js";
import { continuedFrom, newestBelow, pathTo } from "./branches.js";
import { act, goOn, showSkipped } from "./chat_acts.js";
import { Composer } from "./composer.js";
import { drafts, el } from "./dom.js";
import { emptyState } from "./empty.js";
import { onHealth } from "./health.js";
import { listenForKeys } from "./keys.js";
import { conversationInAddress, showInAddress } from "./place.js";
import { preference } from "./preferences.js";
import { RankBar } from "./rankbar.js";
import { openSettings } from "./settings_dialog.js";
import { Sidebar } from "./sidebar.js";
import { conversationWith, systemPromptView } from "./system_prompt.js";
import { TurnView } from "./turn_view.js";
import { isStreaming, topReply, turnFrom } from "./turns.js";
import { say } from "./words.js";

export class Chat {
  /** `openQueue()` shows the queue. */
  constructor(host, openQueue) {
    this.openQueue = openQueue;
    this.conversation = null; // {id, systemPrompt}
    this.turns = [];
    this.leaf = null;
    this.views = new Map(); // turn id -> TurnView
    this.active = null; // the board that the keys work on
    this.goOnFrom = null; // the reply that the next message is to go on from, if one was chosen
    this.startPrompt = null; // the system prompt that a new conversation was begun with
    this.wasLost = false;
    this.asking = new Asking(this);
    this.composer = new Composer({
      send: (text) => this.asking.send(text),
      stop: () => this.current?.board.cutAll(),
      settings: () => openSettings(),
      left: () => this.current?.board.focus(),
    });
    this.rankBar = new RankBar((name) => act(this, name));
    this.sidebar = new Sidebar({
      open: (id) => this.open(id),
      startNew: () => this.startNew(),
      deleted: () => this.startNew(),
      failed: (message) => this.composer.showError(message),
    });
    this.transcript = el("div", { class: "transcript-inner" });
    this.scroller = el(
      "div",
      { class: "transcript", tabindex: "-1", "data-testid": "transcript" },
      this.transcript,
    );
    const dock = el(
      "div",
      { class: "dock" },
      el("div", { class: "dock-inner" }, this.rankBar.element, this.composer.element),
    );
    const { sidebar } = this;
    this.element = el(
      "div",
      { class: "chat" },
      sidebar.menu,
      sidebar.phoneNew,
      sidebar.element,
      sidebar.scrim,
      el(
        "section",
        { class: "chat-main", "aria-label": say("Conversation") },
        el("h2", { class: "sr-only" }, say("Conversation")),
        this.scroller,
        dock,
      ),
    );
    host.append(this.element);
    listenForKeys(this.element, {
      act: (name) => act(this, name),
      pick: (shown) => this.active?.pick(shown),
    });
    addEventListener("hashchange", () => this.#openFromHash());
    onHealth((state) => this.#onHealth(state));
    sidebar.refresh();
    this.#openFromHash({ isFirst: true });
  }

  /** The view of the newest turn of the shown path, or null. */
  get current() {
    return this.leaf ? (this.views.get(this.leaf.id) ?? null) : null;
  }

  // --- opening --------------------------------------------------------------------------------

  #openFromHash({ isFirst = false } = {}) {
    const id = conversationInAddress();
    if (id && id !== this.conversation?.id) this.open(id);
    else if (!id && (isFirst || this.conversation)) this.startNew();
  }

  startNew({ systemPrompt = null } = {}) {
    this.#leave(null);
    this.startPrompt = systemPrompt;
    this.composer.useDraft("new");
    this.#render();
    this.composer.field.focus({ preventScroll: true });
  }

  async open(id) {
    this.#leave({ id, systemPrompt: "" });
    this.composer.useDraft(id);
    this.transcript.replaceChildren(el("p", { class: "hint loading" }, say("Opening the conversation")));
    await this.load({ isOpening: true });
  }

  #leave(conversation) {
    this.asking.leave();
    this.conversation = conversation;
    this.turns = [];
    this.leaf = null;
    this.views.clear();
    this.active = null;
    this.goOnFrom = null;
    this.rankBar.show(null);
    this.composer.showError("");
    this.composer.setWriting(false);
    this.sidebar.select(conversation?.id ?? null);
    showInAddress(conversation?.id ?? 0);
  }

  /** Fetch the open conversation and follow its newest turn if that is still being written. */
  async load({ isOpening = false } = {}) {
    const { id } = this.conversation;
    let json;
    try {
      json = await call("GET", `/api/conversations/${id}`);
    } catch (error) {
      if (this.conversation?.id !== id) return;
      if (error.status === 404) this.startNew();
      this.composer.showError(messageOf(error));
      return;
    }
    if (this.conversation?.id !== id) return;
    this.composer.showError("");
    this.conversation.systemPrompt = json.system_prompt ?? "";
    for (const turn of json.turns) this.#take(turn);
    this.asking.forgetTaken(this.turns);
    const kept = this.leaf?.id ?? Number(drafts.read(`leaf:${id}`));
    const leaf = this.turns.find((turn) => turn.id === kept);
    this.leaf = leaf ? newestBelow(this.turns, leaf) : (this.turns.at(-1) ?? null);
    this.#render();
    if (isOpening) this.#scrollToCurrent();
    if (isOpening && !this.composer.text) this.current?.board.focus();
    if (this.leaf && isStreaming(this.leaf) && !this.asking.following) this.asking.follow(this.leaf);
  }

  /** Take a turn of the server over: a new one, or news of one that is shown. */
  #take(json) {
    const turn = turnFrom(json);
    const known = this.views.get(turn.id);
    if (known) {
      if (known.turn.replies.length !== turn.replies.length) this.widen(known.turn, json);
      return this.views.get(turn.id).board.update(json);
    }
    this.turns.push(turn);
    return this.#addView(turn);
  }

  /** A turn that began with one reply is to be ranked after all: show all its replies. */
  widen(turn, json) {
    turn.replies = turnFrom({ ...json, text: turn.text }).replies;
    const { board } = this.#addView(turn);
    this.#render();
    if (document.activeElement !== this.composer.field) board.focus();
    return board;
  }

  /** The server has no such turn (any more): give the message back. */
  forget(turn) {
    this.turns = this.turns.filter((other) => other !== turn);
    this.views.delete(turn.id);
    if (this.leaf === turn) this.leaf = this.turns.at(-1) ?? null;
    if (!this.composer.text) this.composer.setText(turn.text);
    this.#render();
  }

  #addView(turn) {
    const view = new TurnView(turn, {
      changed: (board) => this.#boardChanged(board),
      activated: (board) => this.#activate(board ?? this.current?.board ?? null),
      failed: (message) => this.composer.showError(message),
      goOn: (reply) => goOn(this, reply),
      edited: (of, text) => this.asking.askAgain(of, text),
      switched: (other) => {
        this.leaf = newestBelow(this.turns, other);
        this.goOnFrom = null;
        this.#render();
        this.#scrollToCurrent();
      },
    });
    showSkipped(view.board);
    this.views.set(turn.id, view);
    return view;
  }

  // --- showing --------------------------------------------------------------------------------

  #render() {
    if (!this.leaf) {
      const prompt =
        this.startPrompt ?? (this.conversation?.systemPrompt || preference("systemPrompt") || "");
      this.transcript.replaceChildren(emptyState((text) => this.#useExample(text), this.openQueue, prompt));
      this.scroller.classList.add("is-empty");
      this.#activate(null);
      return;
    }
    this.scroller.classList.remove("is-empty");
    const path = pathTo(this.turns, this.leaf);
    const parts = path.map((turn) => {
      const view = this.views.get(turn.id);
      view.show({ isCurrent: turn === this.leaf, chosen: continuedFrom(path, turn), turns: this.turns });
      return view.element;
    });
    drafts.write(`leaf:${this.conversation.id}`, String(this.leaf.id));
    const { systemPrompt } = this.conversation;
    const restart = () => this.startNew({ systemPrompt });
    this.transcript.replaceChildren(...(systemPrompt ? [systemPromptView(systemPrompt, restart)] : []), ...parts);
    this.#activate(this.current.board);
    this.composer.setWriting(isStreaming(this.leaf));
  }

  #scrollToCurrent() {
    const view = this.current;
    if (view) requestAnimationFrame(() => view.element.scrollIntoView({ block: "start" }));
  }

  #activate(board) {
    if (board === this.active && board) return;
    this.active?.grid.classList.remove("is-active");
    board?.grid.classList.add("is-active");
    this.active = board;
    this.rankBar.show(board);
    this.showPlaceholder();
  }

  #boardChanged(board) {
    if (board === this.active) this.rankBar.show(board);
    if (board.turn === this.leaf) {
      this.composer.setWriting(isStreaming(board.turn));
      this.showPlaceholder();
    }
  }

  /** Say in the message field where the next message goes on. */
  showPlaceholder() {
    const from = this.goOnFrom ?? (this.leaf ? topReply(this.leaf) : null);
    this.composer.field.placeholder = !this.leaf
      ? say("Ask something")
      : from
        ? say("Go on from reply {n}", { n: from.shown })
        : say("Message");
  }

  #onHealth(state) {
    const { isLost, value } = state;
    if (value?.status === "failed" && value.message) this.composer.showError(value.message);
    if (!isLost && this.wasLost) {
      this.sidebar.refresh();
      if (this.conversation && !this.asking.following) this.load();
    }
    this.wasLost = isLost;
    this.asking.sendHeld(state);
  }

  /** A turn has begun: show it, and let the keys work on it. */
  began(json) {
    const turn = turnFrom({ ...json, id: json.turn_id });
    this.goOnFrom = null;
    this.turns.push(turn);
    this.#addView(turn);
    this.leaf = turn;
    this.#render();
    this.#scrollToCurrent();
    this.current.board.focus();
    this.sidebar.current = this.conversation.id;
    this.sidebar.refresh();
  }

  /** The conversation that is open, made now if none is. Raises ApiError. */
  async ensureConversation() {
    const known = this.conversation;
    const field = this.transcript.querySelector("[data-testid=system-prompt]");
    this.conversation = await conversationWith(known, field?.value.trim() ?? null);
    if (!known) {
      this.composer.draftKey = `message:${this.conversation.id}`;
      showInAddress(this.conversation.id);
    }
    return this.conversation;
  }

  #useExample(text) {
    this.composer.setText(text);
    this.composer.submit();
  }
}

/** Fill the Chat tab. */
export function startChat(host, openQueue) {
  return new Chat(host, openQueue);
}
