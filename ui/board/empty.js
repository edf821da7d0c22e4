// What a new conversation shows: what to do, and something to begin with.

import { el, isTouch } from "./dom.js";

const EXAMPLES = [
  "Explain why the sea has tides, as you would to a curious ten-year-old.",
  "I have eggs, rice and one onion. What can I cook in 15 minutes?",
  "Write a short, friendly note that I will be late tomorrow.",
];

/** The empty state; `use(text)` is called with an example that was clicked. */
export function emptyState(use) {
  return el(
    "div",
    { class: "empty", "data-testid": "empty-state" },
    el("h1", {}, "Teach it by choosing"),
    el(
      "p",
      {},
      "Ask something, and the model answers several ways at once. ",
      el("br"),
      isTouch
        ? "Tap the replies from best to worst: it learns what you prefer."
        : "Press their numbers from best to worst: it learns what you prefer.",
    ),
    el(
      "div",
      { class: "examples" },
      EXAMPLES.map((text) =>
        el(
          "button",
          { type: "button", class: "example", "data-testid": "example", onclick: () => use(text) },
          text,
        ),
      ),
    ),
    el(
      "details",
      {},
      el("summary", { class: "hint" }, "Add a system prompt"),
      el("textarea", {
        class: "field",
        rows: 3,
        dir: "auto",
        "aria-label": "System prompt",
        placeholder: "How the model should behave in this conversation",
        "data-testid": "system-prompt",
      }),
    ),
  );
}
