// What stands above the next item after a skip: take it back, or say why. Neither is needed.

import { call, messageOf } from "./api.js";
import { button, el } from "./dom.js";
import { say } from "./words.js";

export class SkipStrip {
  /** `hooks`: undo(turnId), failed(message). */
  constructor(hooks) {
    this.hooks = hooks;
    this.turnId = null;
    this.element = el("div", { class: "skip-strip", role: "status", "data-testid": "skip-strip", hidden: true });
  }

  show(turnId) {
    this.turnId = turnId;
    const reasons = [say("I cannot judge it"), say("It makes no sense"), say("It is harmful")];
    this.element.replaceChildren(
      el("span", {}, say("Skipped.")),
      button(say("Take it back"), () => this.hooks.undo(turnId), { kind: "link", testid: "skip-undo" }),
      el("span", { class: "hint" }, say("Why?")),
      ...reasons.map((reason) =>
        button(reason, () => this.#tell(reason), { kind: "small outline", testid: "skip-reason" }),
      ),
    );
    this.element.hidden = false;
  }

  hide() {
    this.turnId = null;
    this.element.hidden = true;
  }

  async #tell(reason) {
    try {
      await call("POST", "/api/queue/skip", { turn_id: this.turnId, reason });
      this.element.replaceChildren(el("span", {}, say("Skipped: {reason}.", { reason })));
    } catch (error) {
      this.hooks.failed(messageOf(error));
    }
  }
}
