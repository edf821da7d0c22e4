// The login page: sign in, or make an account by an invitation. Nothing else is here to be seen.

import { ApiError, call, messageOf } from "./api.js";
import { button, el } from "./dom.js";
import { startTheme } from "./theme.js";
import { language, say } from "./words.js";

const SHORTEST_PASSWORD = 10;
const INVITATION = "invitation=";

const error = el("p", { class: "error-banner", role: "alert", "data-testid": "login-error", hidden: true });
const card = el("main", { class: "login-card" });

function field(label, attributes) {
  const input = el("input", { class: "field", required: true, ...attributes });
  return { input, element: el("label", {}, el("span", {}, label), input) };
}

function nameField() {
  return field(say("Name"), {
    name: "name",
    autocomplete: "username",
    autocapitalize: "none",
    spellcheck: "false",
    maxlength: 100,
    "data-testid": "login-name",
  });
}

function passwordField(label, attributes) {
  return field(label, { type: "password", maxlength: 200, "data-testid": "login-password", ...attributes });
}

/** A form that is sent once at a time; `send` gives the promise, and its refusal is shown. */
function form(heading, words, fields, label, send) {
  const submit = button(label, null, { kind: "primary", testid: "login-submit" });
  submit.type = "submit";
  const onsubmit = async (event) => {
    event.preventDefault();
    show("");
    submit.disabled = true;
    try {
      await send();
      enter();
    } catch (problem) {
      show(messageOf(problem));
      submit.disabled = false;
      fields.at(-1).input.select();
    }
  };
  const mark = el("span", { class: "mark", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
  card.replaceChildren(
    el("div", { class: "brand-row" }, mark, el("span", {}, "chatrlhf")),
    el("h1", {}, heading),
    ...words.map((text) => el("p", { class: "hint" }, text)),
    error,
    el(
      "form",
      { method: "post", onsubmit },
      fields.map(({ element }) => element),
      submit,
    ),
  );
  fields[0].input.focus();
}

function show(text) {
  error.textContent = text;
  error.hidden = text === "";
}

function enter() {
  const place = location.hash.startsWith(`#${INVITATION}`) ? "" : location.hash;
  location.replace(new URL(place, new URL(".", location.href)));
}

function showSignIn() {
  const name = nameField();
  const password = passwordField(say("Password"), { name: "password", autocomplete: "current-password" });
  const send = () => call("POST", "/api/session", { name: name.input.value, password: password.input.value });
  form(say("Sign in"), [], [name, password], say("Sign in"), send);
}

const OFFERS = {
  reader: say("You will chat with the model, and see how it learns."),
  rater: say("You will chat with the model and rank its replies, which it learns from."),
  trainer: say("You will chat, rank replies, and decide when the model trains and which version answers."),
  admin: say("You will be able to do everything, and to invite others."),
};

async function showInvitation(secret) {
  let offer;
  try {
    offer = await call("POST", "/api/invitations/read", { secret });
  } catch (problem) {
    showSignIn();
    show(messageOf(problem));
    return;
  }
  const name = nameField();
  const password = passwordField(say("A new password, {n} characters or more", { n: SHORTEST_PASSWORD }), {
    name: "new-password",
    autocomplete: "new-password",
    minlength: SHORTEST_PASSWORD,
  });
  const again = passwordField(say("The same again"), {
    name: "new-password-again",
    autocomplete: "new-password",
    "data-testid": "login-password-again",
  });
  const send = async () => {
    if (again.input.value !== password.input.value)
      throw new ApiError(422, "bad_input", say("The two passwords differ. Type the second one again."));
    await call("POST", "/api/invitations/accept", {
      secret,
      name: name.input.value,
      password: password.input.value,
    });
  };
  const words = [OFFERS[offer.role]];
  if (offer.invited_by) words.unshift(say("{name} invites you.", { name: offer.invited_by }));
  form(say("Make your account"), words, [name, password, again], say("Join"), send);
}

async function start() {
  document.documentElement.lang = language;
  startTheme();
  document.body.append(card);
  const hash = location.hash.slice(1);
  if (hash.startsWith(INVITATION)) return showInvitation(hash.slice(INVITATION.length));
  showSignIn();
  try {
    // Who came by a link from elsewhere came without the cookie, and may be signed in after all:
    // strangers are not told which model runs.
    if ("model" in (await call("GET", "/api/health"))) enter();
  } catch {
    // The server does not answer; signing in will say so.
  }
}

addEventListener("hashchange", start);
start();
