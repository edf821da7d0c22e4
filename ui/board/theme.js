// Light or dark: as the system says, or as a person chose on this page.

import { onPreference, preference } from "./preferences.js";

function apply(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

/** Follow the choice from now on. */
export function startTheme() {
  apply(preference("theme"));
  onPreference("theme", apply);
}
