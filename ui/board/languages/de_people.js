// German of the People screen and the login page.

export default {
  // login
  Name: "Name",
  Password: "Passwort",
  "Sign in": "Anmelden",
  "You will chat with the model, and see how it learns.":
    "Du chattest mit dem Modell und siehst, wie es lernt.",
  "You will chat with the model and rank its replies, which it learns from.":
    "Du chattest mit dem Modell und reihst seine Antworten, woraus es lernt.",
  "You will chat, rank replies, and decide when the model trains and which version answers.":
    "Du chattest, reihst Antworten und entscheidest, wann das Modell trainiert und welche Version antwortet.",
  "You will be able to do everything, and to invite others.":
    "Du kannst alles tun und andere einladen.",
  "A new password, {n} characters or more": "Ein neues Passwort, mindestens {n} Zeichen",
  "The same again": "Noch einmal dasselbe",
  "The two passwords differ. Type the second one again.":
    "Die beiden Passwörter sind verschieden. Tippe das zweite noch einmal.",
  "{name} invites you.": "{name} lädt dich ein.",
  "Make your account": "Dein Konto anlegen",
  Join: "Beitreten",
  // roles
  reader: "Leser",
  "chats, and sees training; teaches nothing": "chattet und sieht das Training; lehrt nichts",
  rater: "Bewerter",
  "ranks replies, which the model learns from": "reiht Antworten, woraus das Modell lernt",
  trainer: "Trainer",
  "starts training, and chooses the version that answers":
    "beginnt das Training und wählt die Version, die antwortet",
  admin: "Verwalter",
  "invites people, and sees everybody's ratings": "lädt Leute ein und sieht alle Bewertungen",
  "Account and people": "Konto und Leute",
  "Sign out": "Abmelden",
  "Signed in as {name}": "Angemeldet als {name}",
  // alone
  "Your name": "Dein Name",
  "A password, {n} characters or more": "Ein Passwort, mindestens {n} Zeichen",
  "Make your own account here. Your chats and ratings stay yours.":
    "Lege hier dein eigenes Konto an. Deine Chats und Bewertungen bleiben deine.",
  "From then on everybody signs in, on this computer too.":
    "Von da an melden sich alle an, auch auf diesem Rechner.",
  "Invite others with a link. Each sees their own chats only; all ratings teach the same model.":
    "Lade andere mit einem Link ein. Jeder sieht nur die eigenen Chats; alle Bewertungen lehren dasselbe Modell.",
  "Start the server at an address that they reach:":
    "Starte den Server unter einer Adresse, die sie erreichen:",
  "Only you": "Nur du",
  "You use this alone, on this computer, so nobody needs to sign in. To rate with others:":
    "Du nutzt dies allein auf diesem Rechner, also muss sich niemand anmelden. Um mit anderen zu bewerten:",
  "Make my account": "Mein Konto anlegen",
  // the own account
  "Sign out everywhere": "Überall abmelden",
  "You are {name}, {role}. You are signed in here:": "Du bist {name}, {role}. Hier bist du angemeldet:",
  You: "Du",
  "a program": "ein Programm",
  since: "seit",
  "last used": "zuletzt genutzt",
  "this browser": "dieser Browser",
  Browser: "Browser",
  Since: "Seit",
  "Last used": "Zuletzt genutzt",
  "Your password now": "Dein jetziges Passwort",
  "A new one, {n} characters or more": "Ein neues, mindestens {n} Zeichen",
  "Your password is changed, and you are signed out of all other browsers.":
    "Dein Passwort ist geändert, und du bist in allen anderen Browsern abgemeldet.",
  Change: "Ändern",
  "What is it for?": "Wofür ist er?",
  "such as the name of a program": "etwa der Name eines Programms",
  "Copy the key now. It is not shown again.":
    "Kopiere den Schlüssel jetzt. Er wird nicht noch einmal gezeigt.",
  "API keys": "API-Schlüssel",
  "A program with your key may do what you may, in your name.":
    "Ein Programm mit deinem Schlüssel darf in deinem Namen, was du darfst.",
  "Make a key": "Einen Schlüssel erstellen",
  made: "erstellt",
  Made: "Erstellt",
  Revoke: "Widerrufen",
  Begins: "Beginnt mit",
  "The key for {name} is no longer good.": "Der Schlüssel für {name} gilt nicht mehr.",
  never: "nie",
  "Copied.": "Kopiert.",
  "It is selected: copy it with your keyboard.": "Es ist ausgewählt: Kopiere es mit der Tastatur.",
  // the team
  "What each role may do, besides what the ones before it may":
    "Was jede Rolle darf, außer dem, was die vor ihr dürfen",
  Chats: "Chats",
  chats: "Chats",
  ratings: "Bewertungen",
  "Last here": "Zuletzt da",
  "last here": "zuletzt da",
  "imported rater": "importierter Bewerter",
  "Remove {name}": "{name} entfernen",
  you: "du",
  "Role of {name}": "Rolle von {name}",
  "{name} is {role} now.": "{name} ist jetzt {role}.",
  "Remove {name}?": "{name} entfernen?",
  "Chats that are erased: {chats}. Ratings: {ratings}. Sessions and keys end.":
    "Chats, die gelöscht werden: {chats}. Bewertungen: {ratings}. Anmeldungen und Schlüssel enden.",
  "Versions trained on them are marked. This cannot be undone.":
    "Versionen, die daraus gelernt haben, werden gekennzeichnet. Das lässt sich nicht rückgängig machen.",
  Keep: "Behalten",
  "{name} is gone, with all that was theirs.": "{name} ist fort, mit allem, was dazugehörte.",
  // invitations
  open: "offen",
  used: "genutzt",
  withdrawn: "zurückgezogen",
  expired: "abgelaufen",
  Role: "Rolle",
  "For whom? (only admins see it)": "Für wen? (nur Verwalter sehen es)",
  "Send this link to one person. It works once, and is not shown again.":
    "Schicke diesen Link einer Person. Er gilt einmal und wird nicht noch einmal gezeigt.",
  "Make a link": "Einen Link erstellen",
  "Invite somebody": "Jemanden einladen",
  For: "Für",
  State: "Zustand",
  Until: "Bis",
  until: "bis",
  somebody: "jemand",
  Withdraw: "Zurückziehen",
  "used by {name}": "genutzt von {name}",
  // the audit log
  "accepted an invitation": "nahm eine Einladung an",
  "added a person": "fügte eine Person hinzu",
  "added prompts": "fügte Prompts hinzu",
  "ended a round": "beendete eine Trainingsrunde",
  "deleted a chat": "löschte einen Chat",
  "exported data": "exportierte Daten",
  "made the first account": "legte das erste Konto an",
  "imported data": "importierte Daten",
  "invited somebody": "lud jemanden ein",
  "made an API key": "erstellte einen API-Schlüssel",
  "changed a password": "änderte ein Passwort",
  "paused training": "hielt das Training an",
  "made a version live": "schaltete eine Version aktiv",
  "took a damaged version out of use": "nahm eine beschädigte Version aus dem Betrieb",
  "removed a person": "entfernte eine Person",
  "asked for a round": "forderte eine Trainingsrunde an",
  "resumed training": "setzte das Training fort",
  "revoked an API key": "widerrief einen API-Schlüssel",
  "changed a role": "änderte eine Rolle",
  "rolled back": "ging zur Version davor zurück",
  "signed in": "meldete sich an",
  "signed out": "meldete sich ab",
  "signed out everywhere": "meldete sich überall ab",
  "took a ranking back": "nahm eine Reihung zurück",
  "withdrew an invitation": "zog eine Einladung zurück",
  "Check the chain": "Die Kette prüfen",
  "What was changed, and by whom": "Was geändert wurde, und von wem",
  When: "Wann",
  Who: "Wer",
  What: "Was",
  Detail: "Einzelheit",
  "The log is whole. Its newest hash: {sha256}":
    "Das Protokoll ist vollständig. Sein neuester Hash: {sha256}",
  "Entry {id} was changed or removed, or one before it was.":
    "Eintrag {id} wurde geändert oder entfernt, oder einer davor.",
  "the program or the command line": "das Programm oder die Befehlszeile",
  "person {id}, removed": "Person {id}, entfernt",
};
