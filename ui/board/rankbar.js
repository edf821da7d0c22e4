// The bar above the composer: what the ranking stands at, and everything the keys do, for the
// hand. It belongs to the board that was touched last.

import { button, el, isTouch } from "./dom.js";
import * as order from "./order.js";

export class RankBar {
  /** `act(name)` does what a key does; see keys.js for the names. */
  constructor(act) {
    this.act = act;
    this.text = el("span", {
      class: "receipt",
      role: "status",
      "aria-live": "polite",
      "data-testid": "receipt",
    });
    this.undo = button("Undo", () => act("undo"), { kind: "link", key: "U", testid: "undo" });
    this.retry = button("Try again", () => act("retry"), { kind: "link", testid: "retry" });
    this.actions = el("div", { class: "rank-actions", role: "toolbar", "aria-label": "Ranking" });
    this.element = el(
      "div",
      { class: "rank-bar" },
      el("div", { class: "rank-state" }, this.text, this.undo, this.retry),
      this.actions,
    );
    this.buttons = {
      tie: button("Tie next", () => act("tie"), { key: "=", testid: "tie" }),
      rest: button("Rest equal", () => act("rest"), { key: "Enter", testid: "rest-equal" }),
      bad: button("All bad", () => act("bad"), { key: "0", testid: "all-bad" }),
      write: button("Write your own", () => act("write"), { key: "E", testid: "write-own" }),
      regenerate: button("Again", () => act("regenerate"), {
        key: "R",
        testid: "regenerate",
        title: "Ask for new replies to the same message",
      }),
      skip: button("Skip", () => act("skip"), {
        key: "S",
        testid: "skip",
        title: "Leave this turn unrated",
      }),
      help: button("", () => act("help"), { key: "?", testid: "help", "aria-label": "Keys" }),
    };
    this.actions.append(...Object.values(this.buttons));
    this.show(null);
  }

  show(board) {
    this.element.hidden = board === null;
    if (!board) return;
    const state = stateOf(board);
    const { mood } = state;
    const text = board.isCurrent ? state.text : `Earlier turn: ${state.text}`;
    if (this.text.textContent !== text) this.text.textContent = text;
    this.text.dataset.mood = mood;
    this.undo.hidden = !board.draft && !board.turn.ranking;
    this.retry.hidden = board.saving !== "refused";
    this.buttons.tie.hidden = !board.isPartial;
    this.buttons.tie.setAttribute("aria-pressed", String(board.draft?.tieNext ?? false));
    this.buttons.rest.hidden = !board.isPartial;
    this.buttons.bad.hidden = board.isPartial || board.positions.length < 2;
    this.buttons.skip.hidden = !board.isCurrent || board.draft !== null || board.turn.ranking !== null;
    this.buttons.regenerate.hidden = !board.isCurrent || board.isWriting;
  }
}

/** One sentence on where the ranking stands. */
function stateOf(board) {
  if (board.isCutting) return { mood: "ask", text: "Which reply to cut? Press its number, or Esc." };
  if (board.saving === "waiting")
    return {
      mood: "bad",
      text: `${order.orderText(board.draft)} is not saved yet: connection lost, retrying`,
    };
  if (board.saving === "refused")
    return { mood: "bad", text: `${order.orderText(board.draft)} is not saved` };
  if (board.saving === "yes") return { mood: "calm", text: "Saving" };
  if (board.draft) return { mood: "ask", text: draftText(board) };
  if (board.receipt) return { mood: board.turn.ranking ? "good" : "calm", text: board.receipt };
  if (board.positions.length < 2) return { mood: "calm", text: tooFewText(board) };
  const how = isTouch ? "tap the best first" : `best first, keys 1 to ${board.turn.replies.length}`;
  if (board.isWriting) return { mood: "calm", text: `Rank while they write: ${how}.` };
  const next = isTouch
    ? "Tap it, then the next best."
    : `Keys 1 to ${board.turn.replies.length}, best first.`;
  return { mood: "ask", text: `Which is best? ${next}` };
}

function tooFewText(board) {
  if (board.isWriting) return "Writing";
  return board.turn.replies.length < 2
    ? "One reply: nothing to rank."
    : "Too few replies were finished to rank them. R asks again.";
}

function draftText(board) {
  const text = board.isDraftBad ? "All bad" : order.orderText(board.draft);
  if (order.isComplete(board.draft, board.positions) && !board.draft.tieNext)
    return `${text}, saved when all replies are done`;
  const next = board.draft.tieNext ? `${text}=?` : `${text}>?`;
  if (!board.turn.ranking) return next;
  return `${next} (Esc keeps ${board.turn.ranking.allBad ? "all bad" : board.turn.ranking.order})`;
}
