// How far people agree, with each other and with themselves, and how the queue is handed out.

import { call, messageOf } from "./api.js";
import { el, toast } from "./dom.js";
import { mayTrain, me } from "./me.js";
import { say } from "./words.js";

export class AgreementView {
  /** `hooks`: changed(), when the queue is handed out in another way. */
  constructor(hooks) {
    this.hooks = hooks;
    this.between = el("p", { "data-testid": "agreement" });
    this.own = el("p", { "data-testid": "consistency" });
    this.error = el("p", { class: "field-error", role: "alert" });
    this.overlap = this.#number("overlap", 1, 20, say("People who rate each prompt"));
    this.ahead = this.#number("ahead", 0, 64, say("Prompts with replies made ahead"));
    this.element = el(
      "div",
      { class: "queue-scroll" },
      el(
        "div",
        { class: "queue-inner" },
        el("section", { class: "panel" }, el("h2", {}, say("Agreement between people")), this.between),
        el("section", { class: "panel" }, el("h2", {}, say("Agreement with yourself")), this.own),
        el(
          "section",
          { class: "panel" },
          el("h2", {}, say("How the queue is handed out")),
          el("p", { class: "hint role-note" }, say("Only trainers and admins change this.")),
          setting(this.overlap, say("With two or more, this page can tell how far people agree.")),
          setting(
            this.ahead,
            say("They are written in the background while nobody chats, so that nobody waits."),
          ),
          this.error,
        ),
      ),
    );
  }

  #number(name, least, most, label) {
    const id = `queue-${name}`;
    const field = el("input", {
      id,
      class: "field",
      type: "number",
      min: least,
      max: most,
      inputmode: "numeric",
      "data-testid": id,
      onchange: () => this.#save({ [name]: Math.round(Number(field.value)) }),
    });
    return { field, label: el("label", { for: id, class: "label" }, label) };
  }

  async shown() {
    try {
      const [stats, settings, who] = await Promise.all([
        call("GET", "/api/queue/stats"),
        call("GET", "/api/queue/settings"),
        me(),
      ]);
      for (const { field } of [this.overlap, this.ahead]) field.disabled = !mayTrain(who);
      this.between.textContent = agreementText(stats.agreement);
      this.own.textContent = consistencyText(stats.consistency);
      this.#take(settings);
      this.error.textContent = "";
    } catch (error) {
      this.error.textContent = messageOf(error);
    }
  }

  #take({ overlap, ahead }) {
    this.overlap.field.value = overlap;
    this.ahead.field.value = ahead;
  }

  async #save(change) {
    try {
      this.#take(await call("PUT", "/api/queue/settings", change));
      this.error.textContent = "";
      toast(say("Saved."));
      this.hooks.changed();
    } catch (error) {
      this.error.textContent = messageOf(error);
    }
  }
}

function setting({ field, label }, hint) {
  return el("div", { class: "queue-setting" }, label, field, el("p", { class: "hint" }, hint));
}

const FEW_ITEMS = 10;
const FEW_REPEATS = 5;

/** The sentence of /api/queue/stats on agreement, in the reader's language. */
export function agreementText({ alpha, items, people }) {
  if (alpha === null)
    return say(
      "No two people have ranked the same replies yet. Let each prompt be rated by two or more people, and this shows how far they agree.",
    );
  const values = { alpha: alpha.toFixed(2), items, people };
  if (items < FEW_ITEMS)
    return say(
      "Krippendorff's alpha is {alpha} ({items} items, {people} people): too few to rely on. It says more from 10 items on.",
      values,
    );
  const words = [
    [0.8, say("People agree well.")],
    [0.667, say("People agree well enough for tentative conclusions.")],
    [0, say("People agree little: talk about what a good reply is, or write it down.")],
    [-2, say("People agree no more than chance: talk about what a good reply is.")],
  ].find(([least]) => alpha >= least)[1];
  const number = say(
    "Krippendorff's alpha is {alpha} ({items} items, {people} people); 1 is full agreement, 0 is chance.",
    values,
  );
  return `${words} ${number}`;
}

/** The sentence of /api/queue/stats on self-consistency, in the reader's language. */
export function consistencyText({ share, low, high, repeats }) {
  if (!repeats)
    return say(
      "Now and then the queue asks you something again, in another order. Once you have rated some of these, this shows how consistent you are.",
    );
  const percent = (value) => Math.round(value * 100);
  const values = { share: percent(share), low: percent(low), high: percent(high), repeats };
  const text = say(
    "You ordered {share}% of the pairs as before (95% interval {low}% to {high}%, hidden repeats: {repeats}).",
    values,
  );
  const basis = repeats < FEW_REPEATS ? say("That is too few to rely on.") : say("Chance is 50%.");
  return `${text} ${basis}`;
}
