// The chat screen: the conversation, the board of its newest turn, and the message field.

import { call, messageOf } from "./api.js";
import { Asking } from "./asking.js";
import { Composer } from "./composer.js";
import { el, showText } from "./dom.js";
import { emptyState } from "./empty.js";
import { onHealth } from "./health.js";
import { listenForKeys, openHelp, openLarge } from "./keys.js";
import { RankBar } from "./rankbar.js";
import { Sidebar } from "./sidebar.js";
import { TurnView } from "./turn_view.js";
import { continuedFrom, isStreaming, newestBelow, pathTo, topReply, turnFrom } from "./turns.js";

export class Chat {
  constructor(host) {
    this.conversation = null; // {id, systemPrompt}
    this.turns = [];
    this.leaf = null;
    this.views = new Map(); // turn id -> TurnView
    this.active = null; // the board that the keys work on
    this.wasLost = false;
    this.asking = new Asking(this);
    this.composer = new Composer({
      send: (text) => this.asking.send(text),
      stop: () => this.current?.board.cutAll(),
      left: () => this.current?.board.focus(),
    });
    this.rankBar = new RankBar((name) => this.act(name));
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
      el("section", { class: "chat-main", "aria-label": "Conversation" }, this.scroller, dock),
    );
    host.append(this.element);
    listenForKeys(this.element, {
      act: (name) => this.act(name),
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
    const id = Number(/^#c=(\d+)$/.exec(location.hash)?.[1] ?? 0);
    if (id && id !== this.conversation?.id) this.open(id);
    else if (!id && (isFirst || this.conversation)) this.startNew();
  }

  startNew() {
    this.#leave(null);
    this.composer.useDraft("new");
    this.#render();
    this.composer.field.focus({ preventScroll: true });
  }

  async open(id) {
    this.#leave({ id, systemPrompt: "" });
    this.composer.useDraft(id);
    this.transcript.replaceChildren(el("p", { class: "hint loading" }, "Opening the conversation"));
    await this.load({ isOpening: true });
  }

  #leave(conversation) {
    this.asking.leave();
    this.conversation = conversation;
    this.turns = [];
    this.leaf = null;
    this.views.clear();
    this.active = null;
    this.rankBar.show(null);
    this.composer.showError("");
    this.composer.setWriting(false);
    this.sidebar.select(conversation?.id ?? null);
    const hash = conversation ? `#c=${conversation.id}` : "";
    if (location.hash !== hash) history.pushState(null, "", hash || location.pathname + location.search);
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
    this.leaf = this.turns.includes(this.leaf)
      ? newestBelow(this.turns, this.leaf)
      : (this.turns.at(-1) ?? null);
    this.#render();
    if (isOpening) this.#scrollToCurrent();
    if (isOpening && !this.composer.text) this.current?.board.focus();
    if (this.leaf && isStreaming(this.leaf) && !this.asking.following) this.asking.follow(this.leaf);
  }

  /** Take a turn of the server over: a new one, or news of one that is shown. */
  #take(json) {
    const turn = turnFrom(json);
    const known = this.views.get(turn.id);
    if (known) return known.board.update(json);
    this.turns.push(turn);
    return this.#addView(turn);
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
      switched: (other) => {
        this.leaf = newestBelow(this.turns, other);
        this.#render();
        this.#scrollToCurrent();
      },
    });
    this.views.set(turn.id, view);
    return view;
  }

  // --- showing --------------------------------------------------------------------------------

  #render() {
    if (!this.leaf) {
      this.transcript.replaceChildren(emptyState((text) => this.#useExample(text)));
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
    this.transcript.replaceChildren(...this.#systemPrompt(), ...parts);
    this.#activate(this.current.board);
    this.composer.setWriting(isStreaming(this.leaf));
  }

  #systemPrompt() {
    if (!this.conversation?.systemPrompt) return [];
    const text = el("div", { class: "system-prompt", dir: "auto" });
    showText(text, this.conversation.systemPrompt);
    return [el("details", {}, el("summary", { class: "hint" }, "System prompt"), text)];
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
    this.#placeholder();
  }

  #boardChanged(board) {
    if (board === this.active) this.rankBar.show(board);
    if (board.turn === this.leaf) {
      this.composer.setWriting(isStreaming(board.turn));
      this.#placeholder();
    }
  }

  #placeholder() {
    const top = this.leaf ? topReply(this.leaf) : null;
    this.composer.field.placeholder = !this.leaf
      ? "Ask something"
      : top
        ? `Go on from reply ${top.shown}`
        : "Message";
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
    if (this.conversation) return this.conversation;
    const prompt = this.transcript.querySelector("[data-testid=system-prompt]")?.value.trim() ?? "";
    const { id } = await call("POST", "/api/conversations", prompt ? { system_prompt: prompt } : {});
    this.conversation = { id, systemPrompt: prompt };
    this.composer.draftKey = `message:${id}`;
    history.pushState(null, "", `#c=${id}`);
    return this.conversation;
  }

  #useExample(text) {
    this.composer.setText(text);
    this.composer.submit();
  }

  // --- keys -----------------------------------------------------------------------------------

  /** Do what a key or its button does. */
  act(name) {
    const board = this.active;
    const deeds = {
      help: () => openHelp(),
      compose: () => this.composer.field.focus(),
      regenerate: () => this.asking.regenerate(),
      tie: () => board?.tie(),
      rest: () => this.#rest(board),
      bad: () => board?.allBad(),
      undo: () => board?.undo(),
      retry: () => board?.retry(),
      write: () => board?.demonstration.open(),
      cut: () => board?.startCutting(),
      large: () => board && openLarge(board, board.focused),
      skip: () => this.#skip(board),
      escape: () => board?.dropDraft(),
    };
    deeds[name]();
  }

  #rest(board) {
    if (!board) return;
    if (board.isPartial) board.restEqual();
    else if (!board.shownOrder && board.grid.contains(document.activeElement)) board.pick(board.focused);
  }

  #skip(board) {
    if (!board || board.draft || board.turn.ranking) return;
    board.receipt = "Skipped. The chat goes on from a reply picked at random.";
    this.rankBar.show(board);
    this.composer.field.focus();
  }
}

/** Fill the Chat tab. */
export function startChat(host) {
  return new Chat(host);
}
