// What a new conversation shows: what to do, and something to begin with.

import { button, el, isTouch } from "./dom.js";
import { health, onHealth } from "./health.js";
import { say } from "./words.js";

const examples = () => [
  say("Explain why the sea has tides, as you would to a curious ten-year-old."),
  say("I have eggs, rice and one onion. What can I cook in 15 minutes?"),
  say("Write a short, friendly note that I will be late tomorrow."),
];

let when = null; // of the newest empty state: the line that says when it will have learned
onHealth(({ value }) => when && (when.textContent = whenText(value?.trainer)));

/** When ranking leads to something, in a sentence; empty while that is not known. */
function whenText(trainer) {
  if (!trainer) return "";
  const left = trainer.next_refit_in;
  if (trainer.state === "running") return say("It is learning from your rankings right now.");
  if (trainer.state === "paused") return say("Training is paused: it learns once you resume it on the Training tab.");
  if (left == null) return say("It learns when you press Train now on the Training tab.");
  if (left > 1)
    return say("After {n} rankings it trains by itself, while you chat. A version that passes its checks then answers.", {
      n: left,
    });
  return say("With the next ranking it trains by itself, while you chat. A version that passes its checks then answers.");
}

/** The empty state; `use(text)` is called with an example that was clicked, `openQueue()` shows the queue. */
export function emptyState(use, openQueue, systemPrompt = "") {
  const field = el("textarea", {
    class: "field",
    rows: 3,
    dir: "auto",
    "aria-label": say("System prompt"),
    placeholder: say("How the model should behave in this conversation"),
    "data-testid": "system-prompt",
  });
  field.value = systemPrompt;
  when = el("p", { class: "hint", "data-testid": "when-trained" }, whenText(health().value?.trainer));
  return el(
    "div",
    { class: "empty", "data-testid": "empty-state" },
    el("h2", {}, say("Teach it by choosing")),
    el(
      "p",
      {},
      say("Ask something, and the model answers several ways at once."),
      " ",
      el("br"),
      isTouch
        ? say("Tap the replies from best to worst: it learns what you prefer.")
        : say("Press their numbers from best to worst: it learns what you prefer."),
    ),
    el(
      "div",
      { class: "examples" },
      examples().map((text) =>
        el(
          "button",
          { type: "button", class: "example", "data-testid": "example", onclick: () => use(text) },
          text,
        ),
      ),
    ),
    when,
    el(
      "p",
      { class: "hint" },
      say("No question at hand?"),
      " ",
      button(say("Rank one prompt after another in the Queue"), openQueue, { kind: "link", testid: "to-queue" }),
    ),
    el(
      "details",
      { open: systemPrompt !== "" },
      el("summary", { class: "hint" }, say("System prompt")),
      field,
    ),
  );
}
