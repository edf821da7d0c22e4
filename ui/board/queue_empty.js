// What the queue says when there is nothing to rate, and what to do then.

import { button, el } from "./dom.js";
import { say } from "./words.js";

/** The model is not there yet. */
export function loadingText(answer) {
  return { title: say("One moment"), text: answer.message, actions: [] };
}

/** Others have what is left. */
export function heldText(answer) {
  const text =
    answer.remaining === 1
      ? say("Somebody else is rating the last prompt. If they leave it, it comes to you.")
      : say("Others are rating the {n} prompts that are left. What they leave comes to you.", {
          n: answer.remaining,
        });
  return { title: say("Nothing to rate just now"), text, actions: ["showPool"] };
}

/** All is rated, or there is nothing at all. */
export function doneText() {
  return {
    title: say("All rated"),
    text: say("There is no prompt left that you have not rated. Write some more, or import a file."),
    actions: ["showPool", "bringBack"],
  };
}

/** The empty state; `hooks`: showPool(), bringBack(). */
export function emptyQueue({ title, text, actions }, hooks) {
  const made = {
    showPool: () => button(say("Go to the prompts"), hooks.showPool, { kind: "primary", testid: "to-pool" }),
    bringBack: () =>
      button(say("Ask me again for what I skipped"), hooks.bringBack, {
        kind: "outline",
        testid: "bring-back",
      }),
  };
  return el(
    "div",
    { class: "empty", "data-testid": "queue-empty" },
    el("h2", {}, title),
    el("p", {}, text),
    el("div", { class: "empty-actions" }, actions.map((name) => made[name]())),
  );
}
