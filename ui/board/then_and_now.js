// Then and now: badly rated prompts, put to the live version, blind or side by side.

import { call, messageOf } from "./api.js";
import { button, el, showText } from "./dom.js";
import { SideBySide } from "./side_by_side.js";
import { say } from "./words.js";

export class ThenAndNow {
  /** hooks: openChat(id), failed(text). */
  constructor(hooks) {
    this.hooks = hooks;
    this.rows = new Map(); // turn id -> row; kept, so that a running comparison is not torn down
    this.empty = el("p", { class: "hint" });
    this.list = el("ol", { class: "then-list", "data-testid": "then-and-now" });
    this.element = el("div", {}, this.empty, this.list);
  }

  update({ live_version: live, turns }) {
    this.empty.hidden = turns.length > 0;
    this.empty.textContent = say(
      "No badly rated prompt of an older version yet. Prompts come here whose replies you called all bad (0), corrected (E) or gave a label such as toxic (F).",
    );
    const known = this.rows;
    this.rows = new Map();
    for (const turn of turns) {
      const row = known.get(turn.turn_id) ?? new Row(this.hooks);
      row.show(turn, live);
      this.rows.set(turn.turn_id, row);
    }
    const elements = [...this.rows.values()].map(({ element }) => element);
    if (elements.some((element, index) => this.list.children[index] !== element) || this.list.children.length !== elements.length)
      this.list.replaceChildren(...elements);
  }
}

class Row {
  constructor(hooks) {
    this.hooks = hooks;
    this.prompt = el("div", { class: "then-prompt", dir: "auto" });
    this.why = el("span", { class: "hint" });
    this.result = el("span", { class: "then-result", "data-testid": "then-result" });
    this.blind = button(say("Rank it blind"), () => this.#replay(), { kind: "outline small", testid: "replay" });
    this.beside = button(say("Side by side"), () => this.#compare(), {
      kind: "outline small",
      testid: "then-compare",
    });
    this.side = new SideBySide();
    this.side.element.hidden = true;
    this.element = el(
      "li",
      { "data-testid": "then-row" },
      el("div", { class: "then-head" }, this.prompt, el("div", { class: "then-buttons" }, this.blind, this.beside)),
      el("div", { class: "then-words" }, this.why, this.result),
      this.side.element,
    );
  }

  show(turn, live) {
    this.turn = turn;
    this.live = live;
    showText(this.prompt, turn.text);
    this.why.textContent = reason(turn);
    this.result.textContent = resultOf(turn, live);
    this.blind.hidden = !turn.can_be_blind;
    this.blind.textContent = turn.replay_turn_id && !turn.preferred ? say("Rank it now") : say("Rank it blind");
  }

  async #replay() {
    const { turn } = this;
    try {
      if (!turn.replay_turn_id || turn.preferred) {
        this.blind.disabled = true;
        await call("POST", "/api/evidence/replays", { turn_id: turn.turn_id });
      }
      this.hooks.failed("");
      this.hooks.openChat(turn.conversation_id);
    } catch (error) {
      this.hooks.failed(messageOf(error));
    } finally {
      this.blind.disabled = false;
    }
  }

  #compare() {
    const { side, turn, live } = this;
    side.element.hidden = !side.element.hidden;
    if (side.element.hidden) return side.stop();
    const title = say("{version}, then (its best)", { version: turn.version });
    return side.ask({ versions: [live], turn_id: turn.turn_id }, { stored: [{ title, text: turn.best }] });
  }
}

function reason({ all_bad: allBad, corrected, faults, replies, version }) {
  if (allBad) return say("{version}: all bad", { version });
  if (corrected) return say("{version}: you wrote a better reply", { version });
  return say("{version}: {faults} of {replies} replies with a fault", { version, faults, replies });
}

function resultOf({ replay_turn_id: replay, preferred, version }, live) {
  if (!replay) return "";
  if (preferred === "newer") return say("You preferred {live} now.", { live });
  if (preferred === "older") return say("You still preferred {version}.", { version });
  if (preferred === "tie") return say("A tie with {live}.", { live });
  return say("Waits for your ranking in the chat.");
}
