// The queue screen: rating what is ready, the pool of prompts, and how far people agree.

import { button, choices, el, isShown } from "./dom.js";
import { AgreementView } from "./queue_agreement.js";
import { PoolView } from "./queue_pool.js";
import { RateView } from "./queue_rate.js";
import { say } from "./words.js";

export class Queue {
  constructor(host) {
    this.rate = new RateView({ showPool: () => this.open("prompts") });
    this.pool = new PoolView();
    this.agreement = new AgreementView({ changed: () => this.rate.refresh() });
    this.views = { rate: this.rate, prompts: this.pool, agreement: this.agreement };
    this.buttons = {
      rate: this.#switch("rate", say("Rate")),
      prompts: this.#switch("prompts", say("Prompts")),
      agreement: this.#switch("agreement", say("Team")),
    };
    this.element = el(
      "div",
      { class: "queue", "data-testid": "queue" },
      el(
        "div",
        { class: "queue-views", role: "group", "aria-label": say("Views of the queue") },
        Object.values(this.buttons),
        this.rate.summary.element,
      ),
      Object.values(this.views).map((view) => view.element),
    );
    host.append(this.element);
    this.open(choices.read("queue-view") || "rate");
    // Nothing is handed out before a person looks: the tab may be laid out long before.
    new IntersectionObserver(() => isShown(this.element) && this.views[this.current].shown()).observe(
      this.element,
    );
  }

  #switch(name, label) {
    const open = () => {
      this.open(name);
      this.views[name].focus?.(); // so that the keys work at once
    };
    return button(label, open, { kind: "segment", testid: `queue-view-${name}` });
  }

  open(name) {
    this.current = name in this.views ? name : "rate";
    choices.write("queue-view", this.current);
    for (const [other, view] of Object.entries(this.views)) {
      view.element.hidden = other !== this.current;
      this.buttons[other].setAttribute("aria-pressed", String(other === this.current));
    }
    this.rate.summary.element.hidden = this.current !== "rate";
    if (isShown(this.element)) this.views[this.current].shown();
  }
}

/** Fill the Queue tab. */
export function startQueue(host) {
  return new Queue(host);
}
