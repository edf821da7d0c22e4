// Markdown as a tree of DOM nodes, block by block. Text enters only through text nodes; HTML in it
// is text like any other, and images stay the text they are written as, so that nothing is fetched.

import { button, el, elText } from "./dom.js";
import { inline } from "./markdown_inline.js";
import { maths } from "./maths.js";
import { say } from "./words.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?: (.*))?$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:\s+(.*)|)$/;
const MARK = /^:?-+:?$/;
const DEEPEST = 12; // nesting beyond this is shown as text
const MOST_COLUMNS = 40;
const LONGEST_FORMULA = 60; // lines

/** The nodes that a text in Markdown stands for. */
export function markdown(text) {
  return blocks(text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n"), 0);
}

function blocks(lines, depth) {
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [node, next] = block(lines, at, depth);
    nodes.push(node);
    at = next;
  }
  return nodes;
}

/** The block that begins at a line, and the line after it. */
function block(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const display = displayMaths(lines, at);
  if (display) return display;
  const heading = HEADING.exec(line);
  // Below the page's own headings.
  if (heading) return [el(`h${Math.min(heading[1].length + 2, 6)}`, {}, inline(withoutHashes(heading[2]))), at + 1];
  if (RULE.test(line)) return [el("hr"), at + 1];
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, at, depth);
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at);
}

function withoutHashes(text = "") {
  const bare = text.trim();
  const last = bare.slice(bare.lastIndexOf(" ") + 1);
  return /^#+$/.test(last) ? bare.slice(0, -last.length).trimEnd() : bare;
}

function beginsBlock(lines, at) {
  const line = lines[at];
  return (
    FENCE.test(line) ||
    HEADING.test(line) ||
    RULE.test(line) ||
    QUOTE.test(line) ||
    isTable(lines, at) ||
    /^ {0,3}(?:\$\$|\\\[)/.test(line) ||
    // Only a list that begins at 1 interrupts a paragraph: a line may begin with a year.
    /^ {0,3}(?:[-*+]|1[.)])\s+\S/.test(line)
  );
}

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !beginsBlock(lines, end)) end += 1;
  const text = lines
    .slice(at, end)
    .map((line) => line.trim())
    .join("\n");
  return [el("p", {}, inline(text)), end];
}

// --- code ---------------------------------------------------------------------------------------

function code(lines, at, [, fence, info]) {
  const closing = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}\\s*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const text = lines.slice(at + 1, end).join("\n");
  const copy = button(say("Copy code"), () => copyText(text, copy), { kind: "small", testid: "copy-code" });
  const node = el(
    "div",
    { class: "code-block" },
    el("div", { class: "code-head" }, elText("span", {}, info.trim().split(/\s/)[0]), copy),
    el("pre", { tabindex: "0" }, elText("code", {}, text)),
  );
  return [node, Math.min(end + 1, lines.length)];
}

/** Put a text on the clipboard, and say so on the button for a moment. */
export async function copyText(text, copyButton) {
  const before = copyButton.textContent;
  try {
    await navigator.clipboard.writeText(text);
    copyButton.textContent = say("Copied");
  } catch {
    copyButton.textContent = say("Not allowed");
  }
  setTimeout(() => (copyButton.textContent = before), 1500);
}

// --- quotes and lists ---------------------------------------------------------------------------

function quote(lines, at, depth) {
  const inside = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    const found = QUOTE.exec(lines[end]);
    if (!found) break;
    inside.push(found[1]);
  }
  return [el("blockquote", {}, blocks(inside, depth + 1)), end];
}

function list(lines, at, depth) {
  const [, , first] = ITEM.exec(lines[at]);
  const isNumbered = /\d/.test(first);
  const base = indentOf(lines[at]);
  const items = [];
  let isLoose = false;
  let end = at;
  while (end < lines.length) {
    const line = lines[end];
    const item = ITEM.exec(line);
    const isOurs = item && indentOf(line) < base + 2 && /\d/.test(item[2]) === isNumbered;
    if (isOurs && !RULE.test(line)) items.push([item[3] ?? ""]);
    else if (!line.trim()) {
      const next = nextFilled(lines, end);
      if (!goesOn(lines[next], base)) break;
      items.at(-1).push("");
      isLoose = true;
      end = next;
      continue;
    } else if (indentOf(line) > base) items.at(-1).push(line.slice(Math.min(indentOf(line), base + 2)));
    else if (item || beginsBlock(lines, end) || lines[end - 1].trim() === "") break;
    else items.at(-1).push(line);
    end += 1;
  }
  const start = isNumbered ? Number.parseInt(first, 10) : null;
  const node = el(
    isNumbered ? "ol" : "ul",
    { start: start !== null && start !== 1 ? start : null, class: isLoose ? "is-loose" : null },
    items.map((own) => el("li", {}, itemNodes(own, depth + 1))),
  );
  return [node, end];
}

function nextFilled(lines, at) {
  let next = at;
  while (next < lines.length && !lines[next].trim()) next += 1;
  return next;
}

/** Does a list go on, after a blank line, with this line? */
function goesOn(line, base) {
  return line !== undefined && (indentOf(line) > base || (ITEM.test(line) && indentOf(line) === base));
}

function itemNodes(lines, depth) {
  const task = /^\[([ xX])\]\s+(.*)$/.exec(lines[0]);
  const nodes = blocks(task ? [task[2], ...lines.slice(1)] : lines, depth);
  const [first] = nodes;
  // A short item is its text, without the space of a paragraph.
  const unwrapped = first?.tagName === "P" ? [...first.childNodes, ...nodes.slice(1)] : nodes;
  return task ? [task[1] === " " ? "\u2610 " : "\u2611 ", ...unwrapped] : unwrapped;
}

function indentOf(line) {
  return line.length - line.trimStart().length;
}

// --- tables -------------------------------------------------------------------------------------

function isTable(lines, at) {
  if (!lines[at].includes("|") || at + 1 >= lines.length || !/^[ |:-]+$/.test(lines[at + 1])) return false;
  const marks = cells(lines[at + 1]);
  return (
    marks.length <= MOST_COLUMNS &&
    marks.every((mark) => MARK.test(mark)) &&
    cells(lines[at]).length === marks.length
  );
}

function table(lines, at) {
  const sides = cells(lines[at + 1]).map((mark) =>
    mark.endsWith(":") ? (mark.startsWith(":") ? "center" : "end") : null,
  );
  const row = (line, tag) => {
    const texts = cells(line);
    const scope = tag === "th" ? "col" : null;
    return el(
      "tr",
      {},
      sides.map((side, column) => el(tag, { "data-side": side, scope }, inline(texts[column] ?? ""))),
    );
  };
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const body = lines.slice(at + 2, end).map((line) => row(line, "td"));
  const node = el("table", {}, el("thead", {}, row(lines[at], "th")), el("tbody", {}, body));
  return [el("div", { class: "table-scroll", tabindex: "0" }, node), end];
}

function cells(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

// --- maths --------------------------------------------------------------------------------------

function displayMaths(lines, at) {
  for (const [open, close] of [
    ["$$", "$$"],
    ["\\[", "\\]"],
  ]) {
    if (!lines[at].trimStart().startsWith(open)) continue;
    const rest = [lines[at].trimStart().slice(2), ...lines.slice(at + 1, at + LONGEST_FORMULA)];
    const last = rest.findIndex((line) => line.includes(close));
    if (last === -1 || !rest[last].trimEnd().endsWith(close)) continue;
    const tex = rest.slice(0, last + 1).join("\n").trimEnd().slice(0, -2);
    return [maths(tex, { isDisplay: true }), at + last + 1];
  }
  return null;
}
