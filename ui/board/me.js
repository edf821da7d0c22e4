// Who is signed in, told in the header, with the way out.

import { call, messageOf } from "./api.js";
import { button, drafts, el, toast } from "./dom.js";
import { onHealth } from "./health.js";
import { say } from "./words.js";

let asked = null;

/** Who I am, asked once: {id, name, role, signed_in_by, has_accounts}. */
export function me() {
  asked ??= call("GET", "/api/me").catch((error) => {
    asked = null;
    throw error;
  });
  return asked;
}

/** The names of the roles, and what each may do besides what the ones before it may. */
export const ROLES = {
  reader: { name: say("reader"), may: say("chats, and sees training; teaches nothing") },
  rater: { name: say("rater"), may: say("ranks replies, which the model learns from") },
  trainer: { name: say("trainer"), may: say("starts training, and chooses the version that answers") },
  admin: { name: say("admin"), may: say("invites people, and sees everybody's ratings") },
};

/** Whether a person may change what is trained and what the queue hands out. */
export function mayTrain({ role }) {
  return role === "trainer" || role === "admin";
}

/** The name of a role in the reader's language. */
export function roleName(role) {
  return ROLES[role]?.name ?? role;
}

/** Leave this browser's session, or with `everywhere` all of them. */
export async function signOut(everywhere = false) {
  try {
    await call("DELETE", everywhere ? "/api/me/sessions" : "/api/session");
  } catch (error) {
    if (error.status !== 401) {
      toast(messageOf(error));
      return;
    }
  }
  forgetDrafts();
  location.assign("login");
}

// What one person typed is not for the next one at this computer.
function forgetDrafts() {
  try {
    sessionStorage.clear();
  } catch {
    drafts.write("tab", "");
  }
}

/** Add the person's name and menu to the header; nothing where nobody signs in. */
export async function startAccount(host, openPeople) {
  // Health is told to strangers too, only shorter: so a session that ended is noticed.
  onHealth(({ value, isLost }) => {
    if (!isLost && value && !("model" in value)) call("GET", "/api/me").catch(() => {});
  });
  let who;
  try {
    who = await me();
  } catch {
    return; // the chip says what is wrong
  }
  document.documentElement.dataset.role = who.role; // people.css hides what they may not use
  if (who.signed_in_by !== "session") return;
  const menu = el(
    "div",
    { class: "account-menu", popover: "auto", id: "account-menu", "data-testid": "account-menu" },
    el("p", { class: "account-name" }, who.name),
    el("p", { class: "hint" }, roleName(who.role)),
    button(
      say("Account and people"),
      () => {
        menu.hidePopover();
        openPeople();
      },
      { testid: "open-people" },
    ),
    button(say("Sign out"), () => signOut(), { testid: "sign-out" }),
  );
  const open = button("", null, {
    kind: "account",
    testid: "account",
    popovertarget: "account-menu",
    "aria-label": say("Signed in as {name}", { name: who.name }),
    title: say("Signed in as {name}", { name: who.name }),
  });
  const initial = [...who.name][0].toLocaleUpperCase();
  open.append(el("span", { class: "initial", "aria-hidden": "true" }, initial));
  open.append(el("span", { class: "account-label", dir: "auto" }, who.name));
  host.append(open, menu);
}
