// German of the Queue screen.

export default {
  Rate: "Reihen",
  Prompts: "Prompts",
  Team: "Team",
  "Views of the queue": "Ansichten der Warteschlange",
  // keys
  "after a number: the rest are equally worse; after an order: the next prompt":
    "nach einer Nummer: der Rest ist gleich schlechter; nach einer Reihung: der nächste Prompt",
  "the next prompt": "der nächste Prompt",
  "undo; where there is nothing to undo, back to the prompt before":
    "rückgängig; wo es nichts zurückzunehmen gibt, zurück zum Prompt davor",
  "skip: another prompt instead of this one": "auslassen: ein anderer Prompt statt diesem",
  // nothing to rate
  "One moment": "Einen Augenblick",
  "Somebody else is rating the last prompt. If they leave it, it comes to you.":
    "Jemand anders reiht gerade den letzten Prompt. Bleibt er liegen, kommt er zu dir.",
  "Others are rating the {n} prompts that are left. What they leave comes to you.":
    "Andere reihen gerade die {n} Prompts, die noch da sind. Was liegen bleibt, kommt zu dir.",
  "Nothing to rate just now": "Gerade gibt es nichts zu reihen",
  "All rated": "Alles gereiht",
  "There is no prompt left that you have not rated. Write some more, or import a file.":
    "Es ist kein Prompt mehr da, den du nicht gereiht hast. Schreibe weitere, oder importiere eine Datei.",
  "Go to the prompts": "Zu den Prompts",
  "Ask me again for what I skipped": "Noch einmal fragen, was ich ausgelassen habe",
  // skipping
  "I cannot judge it": "Das kann ich nicht beurteilen",
  "It makes no sense": "Das ergibt keinen Sinn",
  "It is harmful": "Das ist schädlich",
  "Skipped.": "Ausgelassen.",
  "Take it back": "Zurücknehmen",
  "Why?": "Warum?",
  "Skipped: {reason}.": "Ausgelassen: {reason}.",
  // summary
  "Daily goal": "Tagesziel",
  "Goal: {n} a day": "Ziel: {n} am Tag",
  "Set a daily goal": "Ein Tagesziel setzen",
  "Rankings a day": "Reihungen am Tag",
  "rankings a day": "Reihungen am Tag",
  "No goal": "Kein Ziel",
  "{n} of {goal} today": "{n} von {goal} heute",
  "{n} rated today": "heute {n} gereiht",
  "about {n} an hour": "etwa {n} in der Stunde",
  "{n} days in a row": "{n} Tage in Folge",
  "{n} left": "noch {n}",
  // pool
  "Search prompts": "Prompts durchsuchen",
  Tag: "Schlagwort",
  Tags: "Schlagwörter",
  "Show more": "Mehr zeigen",
  Write: "Schreiben",
  Import: "Import",
  "Trainers and admins keep this pool; you rate what is in it.":
    "Diesen Vorrat pflegen Trainer und Verwalter; du reihst, was darin ist.",
  "All tags": "Alle Schlagwörter",
  "{tag} ({n})": "{tag} ({n})",
  "No prompt is like that. Change the search or the tag.":
    "So einen Prompt gibt es nicht. Ändere die Suche oder das Schlagwort.",
  "The pool is empty. Write a prompt, or import a file with one prompt a line.":
    "Der Vorrat ist leer. Schreibe einen Prompt, oder importiere eine Datei mit einem Prompt je Zeile.",
  "1 prompt": "1 Prompt",
  "The first {n} prompts": "Die ersten {n} Prompts",
  "{n} prompts": "{n} Prompts",
  "rated by 1 person": "von 1 Person gereiht",
  "rated by {n} people": "von {n} Leuten gereiht",
  "replies are ready": "Antworten liegen bereit",
  "The prompt is deleted; its ratings stay.": "Der Prompt ist gelöscht; seine Bewertungen bleiben.",
  // writing and importing
  "separated by commas": "durch Kommas getrennt",
  Task: "Aufgabe",
  "Change the prompt": "Den Prompt ändern",
  "Write a prompt": "Einen Prompt schreiben",
  Add: "Hinzufügen",
  "Write something first.": "Schreibe erst etwas.",
  "The pool has this prompt already.": "Diesen Prompt gibt es im Vorrat schon.",
  "The prompt is in the pool.": "Der Prompt ist im Vorrat.",
  "Prompts, one a line": "Prompts, einer je Zeile",
  "... or paste prompts here, one a line": "... oder füge hier Prompts ein, einer je Zeile",
  "Import prompts": "Prompts importieren",
  "Text with one prompt a line, CSV with a column text, or JSON Lines. What the pool has already is left out.":
    "Text mit einem Prompt je Zeile, CSV mit einer Spalte text, oder JSON Lines. Was der Vorrat schon hat, wird ausgelassen.",
  "A file with prompts": "Eine Datei mit Prompts",
  "Each is the text of this task": "Jeder ist der Text dieser Aufgabe",
  "Tags for all of them": "Schlagwörter für alle",
  "Choose a file, or paste some lines first.": "Wähle erst eine Datei, oder füge Zeilen ein.",
  "Line {line}: {message}": "Zeile {line}: {message}",
  "... and {n} more": "... und {n} weitere",
  "New: {added}. In the pool already: {duplicates}. Refused lines: {failed}.":
    "Neu: {added}. Schon im Vorrat: {duplicates}. Abgelehnte Zeilen: {failed}.",
  // templates
  Summarise: "Zusammenfassen",
  Rewrite: "Umschreiben",
  Classify: "Einordnen",
  "Answer from a text": "Aus einem Text antworten",
  "Text to summarise": "Text, der zusammenzufassen ist",
  "Text to rewrite": "Text, der umzuschreiben ist",
  How: "Wie",
  "Text to classify": "Text, der einzuordnen ist",
  Classes: "Klassen",
  "Text that has the answer": "Text, der die Antwort enthält",
  Question: "Frage",
  // agreement
  "People who rate each prompt": "Leute, die jeden Prompt reihen",
  "Prompts with replies made ahead": "Prompts mit vorab geschriebenen Antworten",
  "Agreement between people": "Übereinstimmung zwischen Leuten",
  "Agreement with yourself": "Übereinstimmung mit dir selbst",
  "How the queue is handed out": "Wie die Warteschlange verteilt wird",
  "Only trainers and admins change this.": "Nur Trainer und Verwalter ändern das.",
  "With two or more, this page can tell how far people agree.":
    "Ab zwei kann diese Seite sagen, wie weit Leute übereinstimmen.",
  "They are written in the background while nobody chats, so that nobody waits.":
    "Sie werden im Hintergrund geschrieben, während niemand chattet, damit niemand wartet.",
  "Saved.": "Gespeichert.",
  "No two people have ranked the same replies yet. Let each prompt be rated by two or more people, and this shows how far they agree.":
    "Noch haben keine zwei Leute dieselben Antworten gereiht. Lass jeden Prompt von zwei oder mehr Leuten reihen, dann steht hier, wie weit sie übereinstimmen.",
  "Krippendorff's alpha is {alpha} ({items} items, {people} people): too few to rely on. It says more from 10 items on.":
    "Krippendorffs Alpha ist {alpha} ({items} Einheiten, {people} Leute): zu wenige, um sich darauf zu verlassen. Ab 10 Einheiten sagt es mehr.",
  "People agree well.": "Die Leute stimmen gut überein.",
  "People agree well enough for tentative conclusions.":
    "Die Leute stimmen gut genug für vorläufige Schlüsse überein.",
  "People agree little: talk about what a good reply is, or write it down.":
    "Die Leute stimmen wenig überein: Sprecht darüber, was eine gute Antwort ist, oder schreibt es auf.",
  "People agree no more than chance: talk about what a good reply is.":
    "Die Leute stimmen nicht mehr als zufällig überein: Sprecht darüber, was eine gute Antwort ist.",
  "Krippendorff's alpha is {alpha} ({items} items, {people} people); 1 is full agreement, 0 is chance.":
    "Krippendorffs Alpha ist {alpha} ({items} Einheiten, {people} Leute); 1 ist volle Übereinstimmung, 0 ist Zufall.",
  "Now and then the queue asks you something again, in another order. Once you have rated some of these, this shows how consistent you are.":
    "Ab und zu fragt dich die Warteschlange etwas noch einmal, in anderer Anordnung. Sobald du einige davon gereiht hast, steht hier, wie beständig du bist.",
  "You ordered {share}% of the pairs as before (95% interval {low}% to {high}%, hidden repeats: {repeats}).":
    "Du hast {share} % der Paare wie zuvor gereiht (95-%-Intervall {low} % bis {high} %, verborgene Wiederholungen: {repeats}).",
  "That is too few to rely on.": "Das sind zu wenige, um sich darauf zu verlassen.",
  "Chance is 50%.": "Zufall wären 50 %.",
};
