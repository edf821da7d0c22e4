// Rating one prompt after the other: three keys for the order of four replies, one for the next.

import { call, messageOf } from "./api.js";
import { Board } from "./board.js";
import { button, el, isShown, showText } from "./dom.js";
import { onHealth } from "./health.js";
import { boardDeeds } from "./board_deeds.js";
import { listenForKeys, openHelp } from "./keys.js";
import { doneText, emptyQueue, heldText, loadingText } from "./queue_empty.js";
import { queueKeys } from "./queue_keys.js";
import { SkipStrip } from "./queue_skip.js";
import { Summary } from "./queue_summary.js";
import { RankBar } from "./rankbar.js";
import { followTurn } from "./stream.js";
import { isStreaming, turnFrom } from "./turns.js";
import { say } from "./words.js";

const RENEW_MS = 4 * 60 * 1000; // well within the lease
const HELD_MS = 10_000;

export class RateView {
  /** `hooks`: showPool(). */
  constructor(hooks) {
    this.hooks = hooks;
    this.item = null; // {prompt, turn}
    this.board = null;
    this.past = []; // turn ids that were shown before, the newest last
    this.isLoading = false;
    this.wantsNext = false; // go on as soon as the order is stored
    this.follower = null;
    this.waiting = null; // for the model
    this.heldTimer = null;
    this.summary = new Summary((message) => this.#fail(message));
    this.strip = new SkipStrip({
      undo: (turnId) => this.#unskip(turnId),
      failed: (message) => this.#fail(message),
    });
    this.error = el("p", { class: "error-banner", role: "alert", hidden: true, "data-testid": "queue-error" });
    this.body = el("div", { class: "queue-body", tabindex: "-1", "data-testid": "queue-body" });
    this.rankBar = new RankBar((name) => this.act(name));
    this.next = button(say("Next"), () => this.act("rest"), {
      kind: "primary",
      key: "Enter",
      testid: "queue-next",
    });
    this.back = button(say("Previous"), () => this.#goBack(), { key: "U", testid: "queue-back" });
    this.dock = el(
      "div",
      { class: "dock" },
      el("div", { class: "dock-inner queue-dock" }, this.rankBar.element, this.back, this.next),
    );
    this.element = el(
      "div",
      { class: "queue-rate" },
      el("h2", { class: "sr-only" }, say("Rate")),
      el("div", { class: "queue-scroll" }, el("div", { class: "queue-inner" }, this.error, this.strip.element, this.body)),
      this.dock,
    );
    listenForKeys(this.element, {
      act: (name) => this.act(name),
      pick: (shown) => this.board?.pick(shown),
    });
    document.addEventListener("keydown", (event) => this.#key(event));
    onHealth(({ value }) => this.waiting && value?.status === "ok" && this.load());
    setInterval(() => this.#renew(), RENEW_MS);
    this.#draw();
  }

  /** The view is looked at. */
  shown() {
    if (!this.item) this.load();
    else this.#renew();
  }

  /** Take the focus, so that the keys work. */
  focus() {
    this.board?.focus();
  }

  /** What is left, or how it is handed out, has changed. */
  refresh() {
    if (!this.item && isShown(this.element)) this.load();
    this.summary.refresh();
  }

  // --- one item after the other -----------------------------------------------------------------

  async load() {
    if (this.isLoading) return;
    this.isLoading = true;
    clearTimeout(this.heldTimer);
    try {
      this.#take(await call("GET", "/api/queue/next"));
    } catch (error) {
      this.#fail(messageOf(error));
    } finally {
      this.isLoading = false;
    }
    this.summary.refresh();
  }

  #take(answer) {
    this.#fail("");
    this.waiting = answer.state === "loading" ? answer : null;
    if (answer.turn) return this.show(answer.prompt, answer.turn);
    this.item = null;
    this.#drop();
    const messages = { loading: loadingText, held: heldText, done: doneText };
    this.body.replaceChildren(
      emptyQueue(messages[answer.state](answer), {
        showPool: () => this.hooks.showPool(),
        bringBack: () => this.#bringBack(),
      }),
    );
    if (answer.state === "held")
      this.heldTimer = setTimeout(() => isShown(this.element) && this.load(), HELD_MS);
    return this.#draw();
  }

  /** Show a turn that is the person's, as JSON of the server. */
  show(prompt, json) {
    this.#drop();
    const turn = turnFrom(json);
    this.item = { prompt, turn };
    this.board = new Board(turn, {
      changed: (board) => board === this.board && this.#changed(),
      activated: () => {},
      failed: (message) => this.#fail(message),
    });
    this.body.replaceChildren(...this.#promptOf(json), this.board.element);
    this.board.grid.classList.add("is-active");
    this.body.parentElement.parentElement.scrollTop = 0;
    if (isStreaming(turn)) this.#follow();
    this.#draw();
    if (isShown(this.element)) this.board.focus();
  }

  #promptOf(json) {
    const message = el("div", { class: "message", dir: "auto", "data-testid": "queue-prompt" });
    showText(message, json.text);
    const parts = [el("div", { class: "message-row" }, message)];
    const system = this.item.prompt?.system_prompt;
    if (system) {
      const text = el("div", { class: "system-prompt", dir: "auto" });
      showText(text, system);
      parts.unshift(el("details", {}, el("summary", { class: "hint" }, say("System prompt")), text));
    }
    return parts;
  }

  #drop() {
    this.follower?.abort();
    this.follower = null;
    this.board = null;
    this.wantsNext = false;
  }

  #follow() {
    const { board } = this;
    const controller = new AbortController();
    this.follower = controller;
    const live = (act) => (data) => controller.signal.aborted || act(data);
    followTurn(
      board.turn.id,
      {
        started: () => {},
        restarted: live(() => board.restart()),
        choosing: live((data) => board.showProgress(data)),
        delta: live((data) => board.addText(data.reply_id, data.text)),
        done: live((data) => board.finishReply(data.reply_id, data)),
        failed: live((message) => this.#fail(message)),
        settled: live((json) => (json ? board.update(json) : this.load())),
      },
      controller.signal,
    );
  }

  #changed() {
    this.#draw();
    if (this.board.turn.ranking && this.board.saving === "no" && !this.board.draft) {
      if (this.storedId !== this.board.turn.ranking.id) this.summary.refresh();
      this.storedId = this.board.turn.ranking.id;
      if (this.wantsNext) this.#goOn();
    }
  }

  #draw() {
    const { board } = this;
    this.rankBar.show(board);
    this.dock.hidden = !board && this.past.length === 0;
    this.back.hidden = this.past.length === 0 || Boolean(board?.draft ?? board?.turn.ranking);
    this.next.hidden = !board;
    this.next.disabled = !board || !(board.turn.ranking || board.draft) || board.isPartial;
    this.element.classList.toggle("is-ranked", Boolean(board?.turn.ranking));
  }

  async #goOn() {
    const { board } = this;
    if (!board) return;
    this.wantsNext = true;
    if (board.saving === "yes") await board.chain;
    if (board !== this.board || !board.turn.ranking || board.draft) return;
    this.past.push(board.turn.id);
    this.strip.hide();
    this.wantsNext = false;
    await this.load();
  }

  // --- keys -------------------------------------------------------------------------------------

  /** Do what a key or its button does. */
  act(name) {
    const { board } = this;
    const deeds = {
      ...boardDeeds(board),
      rest: () => this.#enter(),
      undo: () => this.#undo(),
      help: () => openHelp(queueKeys()),
      skip: () => this.#skip(),
    };
    // The chat has more keys than there is to do here.
    if (name in deeds) deeds[name]();
  }

  #key(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.toLowerCase() !== "n" || !isShown(this.element)) return;
    if (document.querySelector("dialog[open]") || event.target.closest("input, textarea, select")) return;
    event.preventDefault();
    if (this.board && !this.board.isPartial) this.#goOn();
  }

  #enter() {
    const { board } = this;
    if (!board) return;
    if (board.isPartial) board.restEqual();
    else if (board.turn.ranking || board.draft) this.#goOn();
    else if (board.grid.contains(document.activeElement) && document.activeElement !== board.grid)
      board.pick(board.focused);
  }

  #undo() {
    const { board } = this;
    this.wantsNext = false;
    if (board?.draft || board?.turn.ranking) board.undo();
    else this.#goBack();
  }

  async #goBack() {
    const turnId = this.past.pop();
    if (!turnId) return;
    if (turnId === this.strip.turnId) {
      await this.#unskip(turnId);
      return;
    }
    await this.#reopen(turnId);
  }

  async #reopen(turnId) {
    try {
      const json = await call("GET", `/api/turns/${turnId}`);
      this.show(null, json);
    } catch (error) {
      this.#fail(messageOf(error));
      this.#draw();
    }
  }

  // --- skipping ---------------------------------------------------------------------------------

  async #skip() {
    const { board } = this;
    if (!board || board.turn.ranking || board.saving === "yes") return;
    const { id } = board.turn;
    try {
      await call("POST", "/api/queue/skip", { turn_id: id });
    } catch (error) {
      this.#fail(messageOf(error));
      return;
    }
    board.dropDraft();
    this.past.push(id);
    this.strip.show(id);
    await this.load();
  }

  async #unskip(turnId) {
    try {
      await call("DELETE", `/api/queue/skip/${turnId}`);
      this.past = this.past.filter((other) => other !== turnId);
      this.strip.hide();
      await this.#reopen(turnId);
      this.summary.refresh();
    } catch (error) {
      this.#fail(messageOf(error));
    }
  }

  async #bringBack() {
    try {
      await call("DELETE", "/api/queue/skip");
    } catch (error) {
      this.#fail(messageOf(error));
      return;
    }
    await this.load();
  }

  // --- keeping the item -------------------------------------------------------------------------

  /** Hold the lease, or take another item where it has gone to somebody else. */
  async #renew() {
    const { board } = this;
    if (!board || document.hidden || !isShown(this.element)) return;
    if (board.turn.ranking || board.draft || this.isLoading || isStreaming(board.turn)) return;
    try {
      const answer = await call("GET", "/api/queue/next");
      const isUntouched = board === this.board && !board.draft && !board.turn.ranking;
      if (isUntouched && answer.turn?.turn_id !== board.turn.id) this.#take(answer);
    } catch {
      // The next look tries again; a late rating counts as well.
    }
  }

  #fail(message) {
    this.error.textContent = message;
    this.error.hidden = !message;
  }
}
