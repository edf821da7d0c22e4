// Times as their reader writes them.

import { el } from "./dom.js";
import { locale, say } from "./words.js";

const CLOCK = { hour: "2-digit", minute: "2-digit" };

/** "14:05"; empty for what is no time. */
export function clock(iso) {
  const time = new Date(iso);
  return Number.isNaN(time.getTime()) ? "" : time.toLocaleTimeString(locale, CLOCK);
}

/** "22 Nov, 14:05", with the year when it is another; empty for what is no time. */
export function moment(iso) {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return "";
  const year = time.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" };
  return time.toLocaleString(locale, { month: "short", day: "numeric", ...CLOCK, ...year });
}

/** A time in a table; `never` where there is none. */
export function momentCell(iso, never = say("never")) {
  return iso ? el("time", { datetime: iso, class: "nowrap" }, moment(iso)) : never;
}
