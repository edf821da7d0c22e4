// Dialogs over the page: closed by Esc, by a click beside them, and by their own button.

import { button, el, overlayLayer } from "./dom.js";
import { say } from "./words.js";

/** Open a dialog with these children; it is removed when it closes. */
export function openDialog(attributes, ...children) {
  const dialog = el("dialog", { ...attributes, onclose: () => dialog.remove() }, ...children);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  overlayLayer().append(dialog);
  dialog.showModal();
  return dialog;
}

/** The head of a dialog: its title and the button that closes it. */
export function dialogHead(title, close) {
  return el("div", { class: "dialog-head" }, el("h2", {}, title), button(say("Close"), close, { key: "Esc" }));
}
