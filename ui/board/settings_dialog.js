// How this person chats: sampling, when to be asked, and how the page looks. Kept at once.

import { chatSettings } from "./chat_settings.js";
import { dialogHead, openDialog } from "./dialogs.js";
import { el } from "./dom.js";
import { prefer, preference } from "./preferences.js";
import { LANGUAGES, chooseLanguage, language, say } from "./words.js";

/** Open the settings. */
export async function openSettings() {
  const defaults = await chatSettings();
  const dialog = openDialog(
    { class: "settings", "aria-label": say("Settings"), "data-testid": "settings-dialog" },
    dialogHead(say("Settings"), () => dialog.close()),
    el(
      "div",
      { class: "settings-body" },
      group(say("Replies"), sampling(defaults)),
      group(say("When to ask you for a ranking"), asking(defaults)),
      group(say("New chats"), [systemPrompt()]),
      group(say("Looks"), looks()),
      el("p", { class: "hint" }, say("Kept in this browser. What you leave empty, the server decides.")),
    ),
  );
}

function group(title, rows) {
  return el("fieldset", {}, el("legend", {}, title), rows);
}

// --- sampling -----------------------------------------------------------------------------------

function sampling(defaults) {
  return [
    number("replies", say("Replies to a message"), { min: 2, max: 8, step: 1, usual: defaults.replies }),
    number("temperature", say("Temperature"), {
      min: 0,
      max: 5,
      step: 0.05,
      usual: defaults.temperature,
      hint: say("0 always takes the likeliest word; above 1 gets wild"),
    }),
    number("top_p", say("Top p"), {
      min: 0.01,
      max: 1,
      step: 0.01,
      usual: defaults.top_p,
      hint: say("only the likeliest words that have this share together"),
    }),
    number("max_new_tokens", say("Longest reply, in tokens"), {
      min: 1,
      max: 4096,
      step: 1,
      usual: defaults.max_new_tokens,
    }),
    number("seed", say("Seed"), {
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
      step: 1,
      usual: say("random"),
      hint: say("the same seed gives the same replies"),
    }),
  ];
}

function number(name, label, { min, max, step, usual, hint = "" }) {
  const error = el("span", { class: "field-error", role: "alert" });
  const field = el("input", {
    type: "number",
    class: "field",
    id: `setting-${name}`,
    min,
    max,
    step: step < 1 ? "any" : step,
    inputmode: step < 1 ? "decimal" : "numeric",
    placeholder: usual ?? "",
    "data-testid": `setting-${name}`,
    oninput: () => {
      const value = field.valueAsNumber;
      const isEmpty = field.value === "" && !field.validity.badInput;
      const isGood = value >= min && value <= max && (step < 1 || Number.isInteger(value));
      error.textContent = isEmpty || isGood ? "" : say("{min} to {max}, please", { min, max });
      field.setAttribute("aria-invalid", String(!isEmpty && !isGood));
      if (isEmpty) prefer(name, undefined);
      else if (isGood) prefer(name, value);
    },
  });
  field.value = preference(name) ?? "";
  return row(label, field, hint, error);
}

function row(label, field, hint = "", error = null) {
  return el(
    "div",
    { class: "setting" },
    el("label", { for: field.id }, label, hint && el("span", { class: "hint" }, hint)),
    el("span", { class: "setting-field" }, field, error),
  );
}

// --- asking -------------------------------------------------------------------------------------

function asking(defaults) {
  const oneIn = number("ask_one_in", say("One turn in"), {
    min: 2,
    max: 100,
    step: 1,
    usual: defaults.ask_one_in,
  });
  const show = () => (oneIn.hidden = (preference("ask") ?? defaults.ask ?? "every") === "every");
  const ask = select(
    "ask",
    say("Ask me"),
    [
      ["", say("as the server does")],
      ["every", say("every turn")],
      ["sometimes", say("one turn in several")],
      ["unsure", say("when the reward model is unsure")],
    ],
    show,
  );
  show();
  const hint = say(
    "Other turns get one reply. Without a reward model, or where it cannot say, one turn in several is asked.",
  );
  return [ask, oneIn, el("p", { class: "hint" }, hint)];
}

function select(name, label, options, changed = () => {}) {
  const field = el(
    "select",
    {
      class: "field",
      id: `setting-${name}`,
      "data-testid": `setting-${name}`,
      onchange: () => {
        prefer(name, field.value);
        changed();
      },
    },
    options.map(([value, text]) => el("option", { value }, text)),
  );
  field.value = preference(name) ?? "";
  return row(label, field);
}

// --- new chats, looks ---------------------------------------------------------------------------

function systemPrompt() {
  const field = el("textarea", {
    class: "field",
    id: "setting-systemPrompt",
    rows: 3,
    dir: "auto",
    placeholder: say("How the model should behave in new chats"),
    "data-testid": "setting-systemPrompt",
    oninput: () => prefer("systemPrompt", field.value.trim()),
  });
  field.value = preference("systemPrompt") ?? "";
  return el("div", { class: "setting is-tall" }, el("label", { for: field.id }, say("System prompt")), field);
}

function looks() {
  const plain = el("input", {
    type: "checkbox",
    id: "setting-plain",
    "data-testid": "setting-plain",
    onchange: () => prefer("plain", plain.checked),
  });
  plain.checked = preference("plain") === true;
  const languages = el(
    "select",
    { class: "field", id: "setting-language", onchange: () => chooseLanguage(languages.value) },
    Object.entries(LANGUAGES).map(([code, name]) => el("option", { value: code }, name)),
  );
  languages.value = language;
  return [
    select("theme", say("Light or dark"), [
      ["", say("as the system")],
      ["light", say("light")],
      ["dark", say("dark")],
    ]),
    row(say("Language"), languages),
    row(say("Replies as plain text"), plain, say("without Markdown and formulas")),
  ];
}
