// German of what stands on every screen: the tabs, the state of the model, lost connections.

export default {
  Chat: "Chat",
  Queue: "Warteschlange",
  Ratings: "Bewertungen",
  Training: "Training",
  "Is it better?": "Ist es besser?",
  People: "Leute",
  // the server
  "The page failed: {reason}. Reload it; what you typed is kept.":
    "Die Seite hat versagt: {reason}. Lade sie neu; was du getippt hast, bleibt erhalten.",
  "The server does not answer. Nothing you typed is lost; it will be tried again.":
    "Der Server antwortet nicht. Nichts Getipptes geht verloren; es wird noch einmal versucht.",
  "The server answered with status {status}. Try again.":
    "Der Server antwortete mit Status {status}. Versuche es noch einmal.",
  "an invisible character": "ein unsichtbares Zeichen",
  "(nothing was written)": "(nichts geschrieben)",
  // the chip
  "{version} is live now. New replies come from it.":
    "{version} ist jetzt aktiv. Neue Antworten kommen von dort.",
  "loading the model": "das Modell wird geladen",
  "loading the model {percent}%": "das Modell wird geladen, {percent} %",
  "the model could not be loaded": "das Modell konnte nicht geladen werden",
  "reward model": "Belohnungsmodell",
  gates: "Prüfungen",
  starting: "beginnt",
  "less than a minute": "weniger als eine Minute",
  "about {n} min": "etwa {n} min",
  "about {h} h {n} min": "etwa {h} h {n} min",
  "{stage}, {time} left": "{stage}, noch {time}",
  "connection lost, retrying": "keine Verbindung, neuer Versuch",
  connecting: "verbindet",
  "{version} live": "{version} aktiv",
  "no version live": "keine Version aktiv",
  "training: {progress}": "Training: {progress}",
  "training starts soon": "das Training beginnt bald",
  idle: "bereit",
  "training paused": "Training angehalten",
  "training failed": "Training gescheitert",
  "refit in {n}": "Anpassung in {n}",
  "refit due": "Anpassung steht an",
  "Open the Training tab": "Den Reiter Training öffnen",
};
