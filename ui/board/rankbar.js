// The bar above the composer: what the ranking stands at, and everything the keys do, for the
// hand. It belongs to the board that was touched last.

import { button, el, isTouch } from "./dom.js";
import * as order from "./order.js";
import { choiceText } from "./turns.js";
import { say } from "./words.js";

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
    this.undo = button(say("Undo"), () => act("undo"), { kind: "link", key: "U", testid: "undo" });
    this.retry = button(say("Try again"), () => act("retry"), { kind: "link", testid: "retry" });
    this.actions = el("div", { class: "rank-actions", role: "toolbar", "aria-label": say("Ranking") });
    this.element = el(
      "div",
      { class: "rank-bar" },
      el("div", { class: "rank-state" }, this.text, this.undo, this.retry),
      this.actions,
    );
    this.buttons = {
      tie: button(say("Tie next"), () => act("tie"), { key: "=", testid: "tie" }),
      rest: button(say("Rest equal"), () => act("rest"), { key: "Enter", testid: "rest-equal" }),
      bad: button(say("All bad"), () => act("bad"), { key: "0", testid: "all-bad" }),
      weaker: button("\u2212", () => act("weaker"), { testid: "weaker", "aria-label": say("Mean it less") }),
      stronger: button("+", () => act("stronger"), { testid: "stronger", "aria-label": say("Mean it more") }),
      comment: button(say("Comment"), () => act("comment"), { key: "C", testid: "comment-open" }),
      write: button(say("Write your own"), () => act("write"), { key: "E", testid: "write-own" }),
      regenerate: button(say("Again"), () => act("regenerate"), {
        key: "R",
        testid: "regenerate",
        title: say("Ask for new replies to the same message"),
      }),
      skip: button(say("Skip"), () => act("skip"), {
        key: "S",
        testid: "skip",
        title: say("Leave this turn unrated"),
      }),
      help: button("", () => act("help"), { key: "?", testid: "help", "aria-label": say("Keys") }),
    };
    this.strength = el("span", { class: "strength", "data-testid": "strength" });
    this.strengthBox = el(
      "span",
      { class: "strength-box", role: "group", "aria-label": say("Strength") },
      this.buttons.weaker,
      this.strength,
      this.buttons.stronger,
    );
    const { tie, rest, bad, comment, write, regenerate, skip, help } = this.buttons;
    this.actions.append(tie, rest, bad, this.strengthBox, comment, write, regenerate, skip, help);
    this.show(null);
  }

  show(board) {
    this.element.hidden = board === null;
    if (!board) return;
    const { mood, text: state } = stateOf(board);
    const text = board.isCurrent ? state : say("Earlier turn: {state}", { state });
    if (this.text.textContent !== text) this.text.textContent = text;
    this.text.dataset.mood = mood;
    const { milliseconds, extras } = board.ranking;
    this.text.title =
      milliseconds === null ? "" : say("stored in {n} ms at the server", { n: milliseconds.toFixed(1) });
    const isRanked = board.turn.ranking !== null;
    const isRankable = board.positions.length > 1;
    this.undo.hidden = !board.draft && !isRanked;
    this.retry.hidden = board.saving !== "refused";
    this.buttons.tie.hidden = !board.isPartial;
    this.buttons.tie.setAttribute("aria-pressed", String(board.draft?.tieNext ?? false));
    this.buttons.rest.hidden = !board.isPartial;
    this.buttons.bad.hidden =
      board.isPartial || board.isChoosing || !isRankable || (isRanked && !board.draft);
    this.strengthBox.hidden = !board.ranking.isComplete;
    this.strength.textContent = strengthText(extras.strength);
    this.buttons.comment.hidden = !board.ranking.isComplete;
    this.buttons.skip.hidden = !board.isCurrent || board.draft !== null || isRanked || !isRankable;
    this.buttons.regenerate.hidden = !board.isCurrent || board.isWriting;
  }
}

function strengthText(strength) {
  return strength === null
    ? say("strength")
    : {
        1: say("barely better"),
        2: say("a little better"),
        3: say("better"),
        4: say("much better"),
        5: say("by far better"),
      }[strength];
}

/** One sentence on where the ranking stands. */
function stateOf(board) {
  if (board.isCutting) return { mood: "ask", text: say("Which reply to cut? Press its number, or Esc.") };
  if (board.isChoosing) return { mood: "calm", text: choiceText(board.turn) };
  if (board.saving === "waiting")
    return {
      mood: "bad",
      text: say("{order} is not saved yet: connection lost, retrying", { order: order.orderText(board.draft) }),
    };
  if (board.saving === "refused")
    return { mood: "bad", text: say("{order} is not saved", { order: order.orderText(board.draft) }) };
  if (board.saving === "yes" || board.saving === "soon") return { mood: "calm", text: say("Saving") };
  if (board.draft) return { mood: "ask", text: draftText(board) };
  if (board.receipt) return { mood: board.turn.ranking ? "good" : "calm", text: board.receipt };
  if (board.positions.length < 2) return { mood: "calm", text: tooFewText(board) };
  return unrankedState(board, board.turn.replies.length);
}

function unrankedState(board, n) {
  if (board.isWriting) {
    return {
      mood: "calm",
      text: isTouch
        ? say("Rank while they write: tap the best first.")
        : say("Rank while they write: best first, keys 1 to {n}.", { n }),
    };
  }
  const text = isTouch
    ? say("Which is best? Tap it, then the next best.")
    : say("Which is best? Keys 1 to {n}, best first.", { n });
  return { mood: "ask", text };
}

function tooFewText(board) {
  if (board.isWriting) return say("Writing");
  return board.turn.replies.length < 2
    ? say("One reply: nothing to rank. R asks for several.")
    : say("Too few replies were finished to rank them. R asks again.");
}

function draftText(board) {
  const text = board.isDraftBad ? say("All bad") : order.orderText(board.draft);
  if (order.isComplete(board.draft, board.positions) && !board.draft.tieNext)
    return say("{order}, saved when all replies are done", { order: text });
  const next = board.draft.tieNext ? `${text}=?` : `${text}>?`;
  const { ranking } = board.turn;
  if (!ranking) return next;
  return ranking.allBad
    ? say("{order} (Esc keeps all bad)", { order: next })
    : say("{order} (Esc keeps {stored})", { order: next, stored: ranking.order });
}
