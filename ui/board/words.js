// What the page says, in the language of its reader. English is in the code, and is the key of a
// translation: `languages/de.js` exports {"{n} pairs": "{n} Paare"}. A text without a translation
// stays English.

import { choices } from "./kept.js";

/** The languages there are: code and own name. */
export const LANGUAGES = { en: "English", de: "Deutsch" };

/** The language chosen on this page, else the browser's, else English. */
export const language = [choices.read("language"), ...navigator.languages.map((tag) => tag.slice(0, 2))].find(
  (code) => code in LANGUAGES,
) ?? "en";

/** How its reader writes numbers and times: as the browser does, if it speaks the language. */
export const locale = navigator.languages.find((tag) => tag.slice(0, 2) === language) ?? language;

const translations = language === "en" ? {} : (await import(`./languages/${language}.js`)).default;

/**
 * A text in the reader's language, its {placeholders} filled in.
 *
 * The English text is a literal at each call, so that a test finds the untranslated ones.
 */
export function say(english, values = {}) {
  return (translations[english] ?? english).replace(/\{(\w+)\}/g, (whole, name) =>
    name in values ? String(values[name]) : whole,
  );
}

/** Choose a language; the page is loaded again in it. */
export function chooseLanguage(code) {
  choices.write("language", code);
  location.reload();
}
