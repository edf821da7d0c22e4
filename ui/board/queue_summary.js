// The line above the queue: ratings of today, the goal, the pace, days in a row, what is left.

import { call, messageOf } from "./api.js";
import { button, el } from "./dom.js";
import { say } from "./words.js";

export class Summary {
  constructor(failed) {
    this.failed = failed;
    this.stats = null;
    this.bar = el("progress", { class: "progress", max: 1, "aria-label": say("Daily goal"), hidden: true });
    this.text = el("span", { class: "summary-text", role: "status", "data-testid": "queue-summary" });
    this.goal = button("", () => this.#edit(), { kind: "link", testid: "goal" });
    this.form = el("form", { class: "goal-form", hidden: true, onsubmit: (event) => this.#submit(event) });
    this.element = el("div", { class: "summary" }, this.text, this.goal, this.form, this.bar);
  }

  /** Ask the server how far the person is. */
  async refresh() {
    const offset = -new Date().getTimezoneOffset();
    try {
      this.stats = await call("GET", `/api/queue/stats?agreement=false&utc_offset_minutes=${offset}`);
    } catch {
      return; // the numbers of before are better than none
    }
    this.#draw();
  }

  #draw() {
    const { stats } = this;
    this.text.textContent = summaryText(stats);
    this.goal.textContent = stats.goal ? say("Goal: {n} a day", { n: stats.goal }) : say("Set a daily goal");
    this.bar.hidden = !stats.goal;
    this.bar.value = stats.goal ? Math.min(stats.today / stats.goal, 1) : 0;
  }

  #edit() {
    const field = el("input", {
      class: "field",
      type: "number",
      min: 1,
      max: 10000,
      inputmode: "numeric",
      "aria-label": say("Rankings a day"),
      "data-testid": "goal-field",
      onkeydown: (event) => event.key === "Escape" && this.#close(),
    });
    field.value = this.stats?.goal ?? 20;
    this.form.replaceChildren(
      field,
      el("span", { class: "hint" }, say("rankings a day")),
      el("button", { type: "submit", class: "button small primary", "data-testid": "goal-save" }, say("Save")),
      button(say("No goal"), () => this.#save(null), { kind: "small", testid: "goal-remove" }),
    );
    this.form.hidden = false;
    this.goal.hidden = true;
    this.field = field;
    field.select();
  }

  #close() {
    this.form.hidden = true;
    this.goal.hidden = false;
    this.goal.focus();
  }

  #submit(event) {
    event.preventDefault();
    this.#save(Math.round(Number(this.field.value)));
  }

  async #save(goal) {
    try {
      await call("PUT", "/api/queue/goal", { goal });
      this.failed("");
      this.#close();
      await this.refresh();
    } catch (error) {
      this.failed(messageOf(error));
    }
  }
}

/** "12 of 30 today - about 140 an hour - 4 days in a row - 38 left" */
export function summaryText(stats) {
  const parts = [
    stats.goal
      ? say("{n} of {goal} today", { n: stats.today, goal: stats.goal })
      : say("{n} rated today", { n: stats.today }),
  ];
  if (stats.per_hour) parts.push(say("about {n} an hour", { n: Math.round(stats.per_hour) }));
  if (stats.days_in_a_row > 1) parts.push(say("{n} days in a row", { n: stats.days_in_a_row }));
  parts.push(say("{n} left", { n: stats.remaining }));
  return parts.join(" - ");
}
