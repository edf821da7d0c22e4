// One turn in the transcript: the person's message, then the board (the current turn) or the
// reply that the chat went on from, with the others folded behind it.

import { Board } from "./board.js";
import { button, count, el, showText } from "./dom.js";
import { siblingsOf } from "./turns.js";

export class TurnView {
  /** `hooks`: those of Board (activated(null): the current one), and switched(turn): a sibling. */
  constructor(turn, hooks) {
    this.turn = turn;
    this.hooks = hooks;
    this.isUnfolded = false;
    this.chosen = null;
    this.isCurrent = true;
    this.board = new Board(turn, {
      ...hooks,
      changed: (board) => {
        this.#drawMeta();
        hooks.changed(board);
      },
    });
    const message = el("div", { class: "message", dir: "auto", "data-testid": "message" });
    showText(message, turn.text);
    this.versions = el("div", { class: "siblings" });
    this.chosenText = el("div", { class: "reply-text chosen", dir: "auto", "data-testid": "chosen-reply" });
    this.meta = el("span", { class: "hint" });
    this.fold = button("", () => this.#toggle(), { kind: "link", testid: "fold" });
    this.past = el(
      "div",
      { class: "past" },
      this.chosenText,
      el("div", { class: "past-foot" }, this.fold, this.meta),
    );
    this.element = el(
      "section",
      { class: "turn", "data-testid": "turn", "data-turn": turn.id },
      el("div", { class: "message-row" }, message, this.versions),
      this.past,
      this.board.element,
    );
  }

  /** Place this turn in its path: is it the last, and which reply did the next one continue? */
  show({ isCurrent, chosen, turns }) {
    this.isCurrent = this.board.isCurrent = isCurrent;
    if (chosen && chosen !== this.chosen) showText(this.chosenText, chosen.text);
    this.chosen = chosen;
    this.element.classList.toggle("is-current", isCurrent);
    this.#drawSiblings(turns);
    this.#draw();
  }

  #toggle() {
    this.isUnfolded = !this.isUnfolded;
    this.#draw();
    this.hooks.activated(this.isUnfolded ? this.board : null);
  }

  #draw() {
    const isFolded = !this.isCurrent && this.chosen !== null && !this.isUnfolded;
    this.past.hidden = this.isCurrent || this.chosen === null;
    this.chosenText.hidden = !isFolded;
    this.board.element.hidden = isFolded;
    this.fold.textContent = isFolded
      ? `show ${count(this.turn.replies.length, "reply", "replies")}`
      : "hide the others";
    this.fold.setAttribute("aria-expanded", String(!isFolded));
    this.#drawMeta();
  }

  #drawMeta() {
    if (!this.meta || !this.chosen) return;
    const { ranking } = this.turn;
    const rank = ranking ? (ranking.allBad ? "all bad" : ranking.order) : "not ranked";
    this.meta.textContent = [`reply ${this.chosen.shown}`, rank, this.chosen.version]
      .filter(Boolean)
      .join(" - ");
  }

  #drawSiblings(turns) {
    const siblings = siblingsOf(turns, this.turn);
    const index = siblings.indexOf(this.turn);
    this.versions.replaceChildren();
    if (siblings.length < 2) return;
    const step = (label, sign, other) =>
      button(sign, () => this.hooks.switched(other), {
        kind: "small",
        "aria-label": label,
        disabled: other ? null : true,
      });
    this.versions.append(
      step("The attempt before", "\u2039", siblings[index - 1]),
      el("span", { class: "hint" }, `${index + 1} of ${siblings.length}`),
      step("The attempt after", "\u203a", siblings[index + 1]),
    );
  }
}
