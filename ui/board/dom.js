// Small helpers over the DOM. Text from people and models enters the page only through
// text nodes, never as markup.

import { say } from "./words.js";

export { choices, drafts } from "./kept.js";

/**
 * Make an element. Attributes: `class`, `data-*`, `aria-*` and the like; a function under
 * `onclick` and so on becomes a listener; true sets a bare attribute; false, null and undefined
 * leave it out. Children: nodes or strings; strings become text nodes.
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** As `el`, for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") node.addEventListener(name.replace(/^on/, ""), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

/** A button; `key` is shown as a keycap and announced as its shortcut. */
export function button(label, onclick, { key = null, testid = null, kind = "ghost", ...rest } = {}) {
  return el(
    "button",
    {
      type: "button",
      class: `button ${kind}`,
      onclick,
      "data-testid": testid,
      "aria-keyshortcuts": key,
      ...rest,
    },
    label,
    key && el("kbd", { "aria-hidden": "true" }, key),
  );
}

/** A listener whose calls wait for each other, so that a second click acts on what the first has shown. */
export function inTurn(act) {
  let last = Promise.resolve();
  return (...given) => {
    last = last.then(() => act(...given)).catch(() => null); // `act` has told the person
    return last;
  };
}

/**
 * A reader of which the last call counts: `read(isLast)` drops what came when `isLast()` is false;
 * every promise waits for the last call.
 */
export function onlyLast(read) {
  let calls = 0;
  let last = null;
  return () => {
    const call = ++calls;
    const isLast = () => call === calls;
    last = read(isLast).then(() => (isLast() ? null : last));
    return last;
  };
}

// Characters that show nothing or reorder what follows: a reply could hide text or imitate the
// page with them. Joiners stay, because emoji and many scripts need them.
const UNSEEN = new RegExp(
  [
    "[\\u0000-\\u0008\\u000B\\u000C\\u000E-\\u001F\\u007F-\\u009F]", // controls other than tab and line ends
    "[\\u00AD\\u061C\\u180E\\u200B\\u2060-\\u2064\\uFEFF]", // nothing to see
    "[\\u202A-\\u202E\\u2066-\\u206F]", // reorder the text
    "[\\u{E0000}-\\u{E007F}]", // tags: hidden ASCII
  ].join("|"),
  "gu",
);

/** Append text to a container, with characters that would be unseen shown by their number. */
export function appendText(container, text) {
  let from = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (match.index > from) appendPlain(container, text.slice(from, match.index));
    const number = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    container.append(el("span", { class: "unseen", title: say("an invisible character") }, `U+${number}`));
    from = match.index + match[0].length;
  }
  if (from < text.length) appendPlain(container, text.slice(from));
}

function appendPlain(container, text) {
  if (container.lastChild instanceof Text) container.lastChild.appendData(text);
  else container.append(text);
}

/** Replace a container's content by text, as `appendText` shows it. */
export function showText(container, text) {
  container.replaceChildren();
  appendText(container, text);
}

/** An element that holds a text, as `appendText` shows it. */
export function elText(tag, attributes, text) {
  const node = el(tag, attributes);
  appendText(node, text);
  return node;
}

/** True where fingers point, so that keys are not what to speak of. */
export const isTouch = matchMedia("(pointer: coarse)").matches;

/** True while the element is laid out, so false in a tab that is not shown. */
export function isShown(element) {
  return element.isConnected && element.getClientRects().length > 0;
}

/** A random id for idempotency; `crypto.randomUUID` is missing on plain HTTP. */
export function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

// --- toasts -----------------------------------------------------------------------------------

let overlay = null;
let toastArea = null;

/** Where toasts and dialogs live: above everything, with the page's styles. */
export function overlayLayer() {
  overlay ??= document.body.appendChild(el("div", { class: "chatrlhf" }));
  return overlay;
}

/** Say something for a while. Returns a function that removes the message at once. */
export function toast(text, { action = null, onaction = null, milliseconds = 6000 } = {}) {
  toastArea ??= overlayLayer().appendChild(
    el("div", { class: "toasts", role: "status", "aria-live": "polite" }),
  );
  const message = el("div", { class: "toast", "data-testid": "toast" }, el("span", {}, text));
  const remove = () => {
    clearTimeout(timer);
    message.remove();
  };
  if (action) {
    message.append(
      button(
        action,
        () => {
          remove();
          onaction();
        },
        { kind: "link", testid: "toast-action" },
      ),
    );
  }
  const timer = setTimeout(remove, milliseconds);
  toastArea.append(message);
  return remove;
}
