// One turn in the transcript: the person's message, then the board (the current turn) or the
// reply that the chat went on from, with the others folded behind it.

import { Board } from "./board.js";
import { siblingsOf } from "./branches.js";
import { button, el, showText } from "./dom.js";
import { messageEditor } from "./message_editor.js";
import { ReplyText } from "./reply_text.js";
import { say } from "./words.js";

export class TurnView {
  /**
   * `hooks`: those of Board (activated(null): the current one), switched(turn): another branch,
   * edited(turn, text): ask a changed message; resolves to true when it was taken.
   */
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
    this.message = el("div", { class: "message", dir: "auto", "data-testid": "message" });
    showText(this.message, turn.text);
    this.edit = button(say("Edit"), () => this.#editMessage(), {
      kind: "tool",
      testid: "message-edit",
      title: say("Change this message and ask again, in a branch"),
    });
    this.branches = el("div", { class: "siblings", role: "group", "aria-label": say("Branches") });
    this.chosenBody = new ReplyText({ testid: "chosen-reply" });
    this.chosenBody.element.classList.add("chosen");
    this.meta = el("span", { class: "hint" });
    this.fold = button("", () => this.#toggle(), { kind: "link", testid: "fold" });
    this.past = el(
      "div",
      { class: "past" },
      this.chosenBody.element,
      el("div", { class: "past-foot" }, this.fold, this.meta),
    );
    this.messageRow = el(
      "div",
      { class: "message-row" },
      this.message,
      el("div", { class: "message-foot" }, this.edit, this.branches),
    );
    this.element = el(
      "section",
      { class: "turn", "data-testid": "turn", "data-turn": turn.id },
      this.messageRow,
      this.past,
      this.board.element,
    );
  }

  /** Place this turn in its path: is it the last, and which reply did the next one continue? */
  show({ isCurrent, chosen, turns }) {
    this.isCurrent = this.board.isCurrent = isCurrent;
    if (chosen && this.chosenBody.text !== chosen.text) this.chosenBody.set(chosen.text);
    this.chosen = chosen;
    this.element.classList.toggle("is-current", isCurrent);
    this.#drawBranches(turns);
    this.#draw();
  }

  #toggle() {
    this.isUnfolded = !this.isUnfolded;
    this.#draw();
    this.hooks.activated(this.isUnfolded ? this.board : null);
  }

  #draw() {
    const isFolded = !this.isCurrent && this.chosen !== null && !this.isUnfolded;
    const n = this.turn.replies.length;
    this.past.hidden = this.isCurrent || this.chosen === null;
    this.chosenBody.element.hidden = !isFolded;
    this.board.element.hidden = isFolded;
    this.fold.hidden = n < 2;
    this.fold.textContent = isFolded ? say("show {n} replies", { n }) : say("hide the others");
    this.fold.setAttribute("aria-expanded", String(!isFolded));
    this.#drawMeta();
  }

  #drawMeta() {
    if (!this.meta || !this.chosen) return;
    const { ranking } = this.turn;
    const rank = ranking ? (ranking.allBad ? say("all bad") : ranking.order) : say("not ranked");
    this.meta.textContent = [say("reply {n}", { n: this.chosen.shown }), rank, this.chosen.version]
      .filter(Boolean)
      .join(" - ");
  }

  #drawBranches(turns) {
    const siblings = siblingsOf(turns, this.turn);
    const index = siblings.indexOf(this.turn);
    this.branches.replaceChildren();
    this.branches.hidden = siblings.length < 2;
    if (siblings.length < 2) return;
    const step = (label, sign, other) =>
      button(sign, () => this.hooks.switched(other), {
        kind: "small",
        "aria-label": label,
        disabled: other ? null : true,
      });
    this.branches.append(
      step(say("The attempt before"), "\u2039", siblings[index - 1]),
      el(
        "span",
        { class: "hint", "data-testid": "branch" },
        say("{n} of {all}", { n: index + 1, all: siblings.length }),
      ),
      step(say("The attempt after"), "\u203a", siblings[index + 1]),
    );
  }

  #editMessage() {
    const close = () => {
      editor.replaceWith(this.messageRow);
      this.edit.focus();
    };
    const editor = messageEditor(this.turn.text, {
      close,
      ask: async (text) => {
        const isTaken = await this.hooks.edited(this.turn, text);
        if (isTaken) editor.replaceWith(this.messageRow);
        return isTaken;
      },
    });
    this.messageRow.replaceWith(editor);
  }
}
