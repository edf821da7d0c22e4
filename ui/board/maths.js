// TeX as it stands in replies, as MathML; what is not understood is shown as it is written.

import { elText } from "./dom.js";
import { COMMANDS, FUNCTIONS, LARGE, SPACES } from "./maths_signs.js";

const WORDS = /\\(text|textbf|textit|mathrm|operatorname)\*?\s*\{([^{}\\]*)\}/u;
const TOKEN = /\\(?:text|textbf|textit|mathrm|operatorname)\*?\s*\{[^{}\\]*\}|\\[a-zA-Z]+\*?|\\[^]|\d+(?:\.\d+)?|[^\s]/gu;
const DEEPEST = 40;

class NotUnderstood extends Error {}

/** A formula: a `math` element, or the TeX itself where it is not understood. */
export function maths(tex, { isDisplay = false } = {}) {
  try {
    const reader = new Reader(tex);
    const row = reader.row([]);
    const attributes = { display: isDisplay ? "block" : "inline", "aria-label": tex.trim() };
    return node("math", attributes, row);
  } catch (error) {
    if (!(error instanceof NotUnderstood)) throw error;
    return elText("code", { class: isDisplay ? "tex is-display" : "tex" }, tex.trim());
  }
}

function node(tag, attributes, children) {
  const made = document.createElementNS("http://www.w3.org/1998/Math/MathML", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...[children].flat());
  return made;
}

const sign = (text, attributes = {}) => node("mo", attributes, text);

class Reader {
  constructor(tex) {
    // A formula may hide nothing: characters that show nothing are shown with the TeX itself.
    if (/\p{C}/u.test(tex.replaceAll("\n", " "))) throw new NotUnderstood("an unseen character");
    this.tokens = tex.match(TOKEN) ?? [];
    this.at = 0;
    this.depth = 0;
  }

  peek() {
    return this.tokens[this.at];
  }

  next() {
    if (this.at >= this.tokens.length) throw new NotUnderstood("it ends too early");
    return this.tokens[this.at++];
  }

  expect(token) {
    if (this.next() !== token) throw new NotUnderstood(`no ${token}`);
  }

  /** Everything up to one of the tokens, which stays, or to the end. */
  row(ends) {
    const parts = [];
    while (this.at < this.tokens.length && !ends.includes(this.peek())) parts.push(this.scripted());
    if (ends.length && this.at >= this.tokens.length) throw new NotUnderstood("it does not end");
    return parts.length === 1 ? parts[0] : node("mrow", {}, parts);
  }

  /** One thing with what stands below and above it. */
  scripted() {
    if (++this.depth > DEEPEST) throw new NotUnderstood("it is too deep");
    const isLarge = LARGE.has(this.peek());
    const base = "^_".includes(this.peek()) ? node("mrow", {}, []) : this.one();
    let below = null;
    let above = null;
    for (;;) {
      if (this.peek() === "_" && !below) below = this.script();
      else if (this.peek() === "^" && !above) above = this.script();
      else if (this.peek() === "'" && !above) {
        let primes = "";
        while (this.peek() === "'") primes += this.next() && "\u2032";
        above = sign(primes);
      } else break;
    }
    this.depth -= 1;
    const [sub, sup, both] = isLarge ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
    if (below && above) return node(both, {}, [base, below, above]);
    if (below) return node(sub, {}, [base, below]);
    return above ? node(sup, {}, [base, above]) : base;
  }

  script() {
    this.next();
    return this.one();
  }

  /** A group in braces, a command, a number, a letter or a sign. */
  one() {
    const token = this.next();
    if (token === "{") {
      const inside = this.row(["}"]);
      this.expect("}");
      return inside;
    }
    if (token === "}" || token === "&" || token === "^" || token === "_") throw new NotUnderstood(token);
    if (token.startsWith("\\")) return this.command(token);
    if (/^\d/.test(token)) return node("mn", {}, token);
    if (/^\p{L}$/u.test(token)) return node("mi", {}, token);
    return sign(token === "-" ? "\u2212" : token);
  }

  command(token) {
    const [, style, text] = WORDS.exec(token) ?? [];
    if (style) return words(style, text);
    const name = token.slice(1).replace(/\*$/, "");
    if (name in COMMANDS) {
      const [tag, text] = COMMANDS[name];
      return node(tag, {}, text);
    }
    if (FUNCTIONS.has(name)) return node("mi", { mathvariant: "normal" }, name);
    if (name in SPACES) return node("mspace", { width: SPACES[name] }, []);
    const special = SPECIAL[name];
    if (!special) throw new NotUnderstood(token);
    return special(this, name);
  }

  /** The letters in braces, such as the name of an environment. */
  name() {
    this.expect("{");
    let text = "";
    while (this.peek() !== "}") {
      const token = this.next();
      if (token.startsWith("\\") || token === "{") throw new NotUnderstood(token);
      text += token;
    }
    this.next();
    return text;
  }

  rows(end) {
    const rows = [[]];
    for (;;) {
      rows.at(-1).push(this.row(["&", "\\\\", "\\end"]));
      const token = this.next();
      if (token === "\\\\") rows.push([]);
      if (token !== "\\end") continue;
      if (this.name() !== end) throw new NotUnderstood(end);
      return rows.filter((row) => row.length > 1 || row[0].childNodes.length || row[0].tagName !== "mrow");
    }
  }
}

function words(style, text) {
  if (style.startsWith("text")) return node("mtext", { class: style }, text);
  return node("mi", { mathvariant: "normal" }, text);
}

const fraction = (reader) => node("mfrac", {}, [reader.one(), reader.one()]);
const accent = (mark) => (reader) => node("mover", { accent: "true" }, [reader.one(), sign(mark)]);
const variant = (style) => (reader) => node("mrow", { class: style }, reader.one());

const SPECIAL = {
  __proto__: null,
  frac: fraction,
  dfrac: fraction,
  tfrac: fraction,
  binom: (reader) =>
    node("mrow", {}, [
      sign("("),
      node("mfrac", { linethickness: "0" }, [reader.one(), reader.one()]),
      sign(")"),
    ]),
  sqrt: (reader) => {
    if (reader.peek() !== "[") return node("msqrt", {}, reader.one());
    reader.next();
    const degree = reader.row(["]"]);
    reader.expect("]");
    return node("mroot", {}, [reader.one(), degree]);
  },
  mathbf: variant("bold"),
  boldsymbol: variant("bold"),
  mathbb: (reader) => {
    const letter = reader.name();
    return node("mi", { mathvariant: "normal" }, BLACKBOARD[letter] ?? letter);
  },
  mathcal: variant("script"),
  hat: accent("^"),
  bar: accent("\u00af"),
  overline: accent("\u00af"),
  vec: accent("\u2192"),
  tilde: accent("~"),
  dot: accent("\u02d9"),
  boxed: (reader) => node("mrow", { class: "boxed" }, reader.one()),
  left: (reader) => {
    const open = fence(reader);
    const inside = reader.row(["\\right"]);
    reader.next();
    return node("mrow", {}, [open, inside, fence(reader)]);
  },
  begin: (reader) => {
    const name = reader.name();
    const [open, close] = MATRICES[name.replace(/\*$/, "")] ?? [];
    if (open === undefined) throw new NotUnderstood(name);
    const rows = reader.rows(name);
    const grid = node(
      "mtable",
      {},
      rows.map((row) =>
        node(
          "mtr",
          {},
          row.map((cell) => node("mtd", {}, cell)),
        ),
      ),
    );
    return node("mrow", {}, [open && sign(open), grid, close && sign(close)].filter(Boolean));
  },
};

const BLACKBOARD = { __proto__: null, R: "\u211d", N: "\u2115", Z: "\u2124", Q: "\u211a", C: "\u2102", P: "\u2119", E: "\ud835\udd3c" };
const MATRICES = {
  __proto__: null,
  matrix: ["", ""],
  pmatrix: ["(", ")"],
  bmatrix: ["[", "]"],
  vmatrix: ["|", "|"],
  cases: ["{", ""],
  aligned: ["", ""],
  align: ["", ""],
};

function fence(reader) {
  const token = reader.next();
  const text = { ".": "", "\\{": "{", "\\}": "}", "\\|": "\u2016", "\\langle": "\u27e8", "\\rangle": "\u27e9" }[token];
  if (text === undefined && token.startsWith("\\")) throw new NotUnderstood(token);
  return sign(text ?? token, { stretchy: "true", fence: "true" });
}
