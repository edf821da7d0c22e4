// Changing a message that was sent: it is asked again in a branch, and what was there stays.

import { button, el } from "./dom.js";
import { grow } from "./demonstration.js";
import { say } from "./words.js";

/** An editor of a message; `ask(text)` resolves to true when taken, `close()` ends it. */
export function messageEditor(text, { ask, close }) {
  const field = el("textarea", {
    class: "field",
    rows: 2,
    dir: "auto",
    "aria-label": say("Your message"),
    "data-testid": "message-edit-text",
    oninput: () => grow(field),
    onkeydown: (event) => {
      if (event.key === "Escape") close();
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit();
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
  });
  const submit = async () => {
    if (!field.value.trim()) return;
    field.readOnly = true;
    if (!(await ask(field.value))) field.readOnly = false;
  };
  field.value = text;
  requestAnimationFrame(() => {
    grow(field);
    field.focus();
  });
  return el(
    "div",
    { class: "message-editor" },
    field,
    el(
      "div",
      { class: "editor-foot" },
      el("span", { class: "hint" }, say("The message you sent stays in its own branch.")),
      el("span", { class: "space" }),
      button(say("Close"), close, { key: "Esc" }),
      button(say("Ask this"), submit, { kind: "primary", key: "Enter", testid: "message-edit-send" }),
    ),
  );
}
