// The text of a reply on the page: Markdown, or the plain text where a person prefers it.

import { el, showText } from "./dom.js";
import { markdown } from "./markdown.js";
import { onPreference, preference } from "./preferences.js";
import { say } from "./words.js";

const REDRAW_MS = 60;
// Longer texts are shown as they are: nobody reads them, and the page stays quick.
const LONGEST = 60_000;

const shown = new WeakMap(); // element -> ReplyText

/** Text that grows while it is written. `element` shows it. */
export class ReplyText {
  constructor({ testid = "reply-text", ...attributes } = {}) {
    this.text = "";
    this.timer = null;
    this.element = el("div", {
      class: "reply-text",
      dir: "auto",
      "data-testid": testid,
      "data-empty": say("(nothing was written)"),
      ...attributes,
    });
    shown.set(this.element, this);
  }

  /** Show a text now. */
  set(text) {
    clearTimeout(this.timer);
    this.timer = null;
    this.text = text;
    this.#draw();
  }

  /** Add to the text; it is drawn within a moment, together with what else comes till then. */
  add(text) {
    this.text += text;
    this.timer ??= setTimeout(() => this.set(this.text), REDRAW_MS);
  }

  redraw() {
    this.set(this.text);
  }

  #draw() {
    const isPlain = preference("plain") || this.text.length > LONGEST;
    this.element.classList.toggle("is-plain", isPlain);
    if (isPlain) showText(this.element, this.text);
    else this.element.replaceChildren(...markdown(this.text));
  }
}

/** A text that does not grow any more, as an element. */
export function replyText(text, attributes) {
  const body = new ReplyText(attributes);
  body.set(text);
  return body.element;
}

onPreference("plain", () => {
  for (const element of document.querySelectorAll(".reply-text")) shown.get(element)?.redraw();
});
