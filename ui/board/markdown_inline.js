// The inside of a paragraph: emphasis, code, links and maths.

import { appendText, el, elText } from "./dom.js";
import { maths } from "./maths.js";

// What a link may lead to: no scheme that runs something, and no character that hides where it
// leads. Anything else stays text.
const LINK = /^(?:https?:\/\/|mailto:)[^\s<>"\p{C}\p{Z}]+$/iu;
// An address in the text, without the sign that ends its sentence.
const BARE = /https?:\/\/[^\s<>"'`|\\^{}[\]\p{C}\p{Z}]*[^\s<>"'`|\\^{}[\]\p{C}\p{Z}.,;:!?()*_~]/iuy;
const DEEPEST = 12;

// Spans are bounded, so that a text full of signs that open and never close takes no minutes.
// Each rule: where it may match, and the node that it makes; null lets the text be text.
const RULES = [
  [/\\([\\`*_{}[\]()#+\-.!|~$<>])/y, ([, sign]) => sign],
  [/(`+)([^`]|[^`][^]{0,1500}?[^`])\1(?!`)/y, ([, , text]) => elText("code", {}, text.replaceAll("\n", " ").trim())],
  [/\\\(([^]{1,1500}?)\\\)/y, ([, tex]) => maths(tex)],
  // A sum of money is no formula: no space inside the signs, no digit behind the last.
  [/\$\$([^]{1,1500}?)\$\$/y, ([, tex]) => maths(tex)],
  [/\$(?=\S)((?:\\.|[^$\\\n]){0,500}?\S)\$(?!\d)/y, ([, tex]) => maths(tex)],
  [/\[((?:\\.|[^[\]\\]){1,500})\]\(((?:[^\s()]|\([^\s()]*\))+)(?:\s+"[^"\n]*")?\)/y, ([, text, url], depth) => link(url, text, depth)],
  [/<((?:https?:\/\/|mailto:)[^\s<>]+)>/iy, ([, url], depth) => link(url, null, depth)],
  [BARE, ([url], depth) => link(url, null, depth)],
  [/\*\*\*(?=\S)([^]{0,1500}?\S)\*\*\*/y, ([, text], depth) => el("strong", {}, el("em", {}, inline(text, depth)))],
  [/\*\*(?=\S)([^]{0,1500}?\S)\*\*(?!\*)/y, ([, text], depth) => el("strong", {}, inline(text, depth))],
  [/\*(?=[^\s*])([^]{0,1500}?[^\s*])\*(?!\*)/y, ([, text], depth) => el("em", {}, inline(text, depth))],
  [/~~(?=\S)([^]{0,1500}?\S)~~/y, ([, text], depth) => el("del", {}, inline(text, depth))],
  [/\n/y, () => el("br")],
];
// Underscores stand inside of names, so they emphasise whole words only.
const WORD_RULES = [
  [/__(?=\S)([^]{0,1500}?\S)__(?![\p{L}\p{N}_])/uy, ([, text], depth) => el("strong", {}, inline(text, depth))],
  [/_(?=[^\s_])([^]{0,1500}?[^\s_])_(?![\p{L}\p{N}_])/uy, ([, text], depth) => el("em", {}, inline(text, depth))],
];
const STARTS = /[\\`$[<hH*~\n_]/g;

/** The nodes of a line of text. */
export function inline(text, depth = 0) {
  const host = document.createDocumentFragment();
  let from = 0;
  let at = 0;
  while (at < text.length) {
    STARTS.lastIndex = at;
    const start = STARTS.exec(text);
    if (!start) break;
    at = start.index;
    const found = depth < DEEPEST ? match(text, at, depth + 1) : null;
    if (!found) {
      at += 1;
      continue;
    }
    appendText(host, text.slice(from, at));
    if (typeof found.node === "string") appendText(host, found.node);
    else host.append(found.node);
    at = from = found.end;
  }
  appendText(host, text.slice(from));
  return [...host.childNodes];
}

function match(text, at, depth) {
  const isWithinWord = at > 0 && /[\p{L}\p{N}_]/u.test(text[at - 1]);
  if (isWithinWord && /[hH]/.test(text[at])) return null;
  // An image would be fetched, so it stays as it is written.
  if (text[at] === "[" && text[at - 1] === "!") return null;
  const rules = text[at] === "_" ? (isWithinWord ? [] : WORD_RULES) : RULES;
  for (const [pattern, make] of rules) {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    const node = found && make(found, depth);
    if (node) return { node, end: at + found[0].length };
  }
  return null;
}

function link(url, text, depth) {
  if (!LINK.test(url)) return null;
  return el(
    "a",
    { href: url, title: url, target: "_blank", rel: "noopener noreferrer nofollow" },
    text === null ? url : inline(text, depth + 1).map(withoutLink),
  );
}

/** A link within a link is its text. */
function withoutLink(node) {
  return node.nodeName === "A" ? node.textContent : node;
}
