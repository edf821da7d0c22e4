// German of the screen "Is it better?", with the sentences of loop/evidence_words.py.

export default {
  "Whose rankings": "Wessen Reihungen",
  "Rankings of everybody": "Reihungen von allen",
  "My rankings": "Meine Reihungen",
  "Blind duels": "Blinde Duelle",
  "How often the newer version was preferred where nobody knew who wrote what. A tie counts half; lines are 95% intervals.":
    "Wie oft die neuere Version bevorzugt wurde, wo niemand wusste, wer was schrieb. Gleichauf zählt halb; Linien sind 95-%-Intervalle.",
  "Strength of the versions": "Stärke der Versionen",
  "All duels together: how likely each version is to be preferred to the oldest one (Bradley-Terry; intervals by resampling prompts).":
    "Alle Duelle zusammen: wie wahrscheinlich jede Version der ältesten vorgezogen wird (Bradley-Terry; Intervalle durch wiederholtes Ziehen der Prompts).",
  "The reward model, before it learned": "Das Belohnungsmodell, bevor es lernte",
  "How many pairs of a new ranking it had right before it was trained on it. 50% is chance.":
    "Bei wie vielen Paaren einer neuen Reihung es recht hatte, bevor es daraus lernte. 50 % sind Zufall.",
  "Then and now": "Damals und heute",
  "Your worst-rated prompts, put to the live version again. Ranked blind they are counted apart, because they were chosen for being bad.":
    "Deine am schlechtesten bewerteten Prompts, der aktiven Version neu gestellt. Blind gereiht zählen sie gesondert, denn sie wurden ausgewählt, weil sie schlecht waren.",
  "Roll back to {version}": "Zurück zu {version}",
  "No duel was ranked yet. They come by themselves while you chat.":
    "Noch ist kein Duell gereiht. Sie kommen von selbst, während du chattest.",
  "Replayed prompts, counted apart": "Neu gestellte Prompts, gesondert gezählt",
  "Duels so far: {turns} shown, {ranked} ranked.": "Duelle bisher: {turns} gezeigt, {ranked} gereiht.",
  "{lost} rankings are not counted, as they were not blind.":
    "{lost} Reihungen zählen nicht, weil sie nicht blind waren.",
  // figures
  "{newer} over {older}": "{newer} vor {older}",
  "{version} over {anchor}": "{version} vor {anchor}",
  "{wins} of {votes}, {ties} tied: {share}": "{wins} von {votes}, {ties} gleichauf: {share}",
  "{wins} of {votes}: {share}": "{wins} von {votes}: {share}",
  "The hollow mark: if the replies of both had been equally long.":
    "Das hohle Zeichen: wenn die Antworten beider gleich lang gewesen wären.",
  "Strengths appear once two versions have met in a duel.":
    "Stärken erscheinen, sobald sich zwei Versionen in einem Duell begegnet sind.",
  "no interval yet": "noch kein Intervall",
  "Nothing was foretold yet. From the second round on, each new ranking is judged first by the reward model that is live, and learned from afterwards.":
    "Noch ist nichts vorhergesagt. Ab der zweiten Trainingsrunde wird jede neue Reihung erst vom aktiven Belohnungsmodell beurteilt und danach gelernt.",
  "It knew better than chance what you would prefer.":
    "Es wusste besser als der Zufall, was dir lieber ist.",
  "It foretold the opposite of what you preferred.":
    "Es sagte das Gegenteil dessen vorher, was dir lieber war.",
  "Whether it is better than chance is not sure yet.":
    "Ob es besser ist als der Zufall, ist noch nicht sicher.",
  "{right} of {pairs} pairs in {rankings} rankings were right ({share}).":
    "{right} von {pairs} Paaren in {rankings} Reihungen stimmten ({share}).",
  "Accuracy so far, after each of {rankings} rankings; the last is {share}":
    "Treffsicherheit bis dahin, nach jeder von {rankings} Reihungen; zuletzt {share}",
  "first ranking": "erste Reihung",
  "ranking {rankings}": "Reihung {rankings}",
  "By reward model": "Nach Belohnungsmodell",
  "{version}, {count} rankings": "{version}, {count} Reihungen",
  // then and now
  "No badly rated prompt of an older version yet. Prompts come here whose replies you called all bad (0), corrected (E) or gave a label such as toxic (F).":
    "Noch kein schlecht bewerteter Prompt einer älteren Version. Hierher kommen Prompts, deren Antworten du alle schlecht genannt (0), verbessert (E) oder mit einem Etikett wie giftig versehen hast (F).",
  "Rank it blind": "Blind reihen",
  "Rank it now": "Jetzt reihen",
  "Side by side": "Nebeneinander",
  "{version}, then (its best)": "{version}, damals (das Beste)",
  "{version}: all bad": "{version}: alle schlecht",
  "{version}: you wrote a better reply": "{version}: du hast eine bessere Antwort geschrieben",
  "{version}: {faults} of {replies} replies with a fault":
    "{version}: {faults} von {replies} Antworten mit einem Fehler",
  "You preferred {live} now.": "Diesmal war dir {live} lieber.",
  "You still preferred {version}.": "Dir war immer noch {version} lieber.",
  "A tie with {live}.": "Gleichauf mit {live}.",
  "Waits for your ranking in the chat.": "Wartet im Chat auf deine Reihung.",
  // the verdict, in sentences of the server
  "Nothing is known yet: {live} is the only version. Once training has made the next one, some turns mix both without telling, and your rankings compare them.":
    "Noch ist nichts bekannt: {live} ist die einzige Version. Sobald das Training die nächste gemacht hat, mischen manche Runden beide, ohne es zu sagen, und deine Reihungen vergleichen sie.",
  "Nothing is known of {live} yet, and blind duels are off. Set chat.duels above 0, or replay a prompt below.":
    "Von {live} ist noch nichts bekannt, und blinde Duelle sind ausgeschaltet. Setze chat.duels über 0, oder stelle unten einen Prompt neu.",
  "Nothing is known of {live} yet: about {percent}% of the turns mix it with an older version, without telling. Chat and rank as always.":
    "Von {live} ist noch nichts bekannt: Etwa {percent} % der Runden mischen sie mit einer älteren Version, ohne es zu sagen. Chatte und reihe wie immer.",
  "You preferred {live} in {wins} of {votes} blind turns ({share}, 95% interval {low}-{high}).":
    "In {wins} von {votes} blinden Runden war dir {live} lieber ({share}, 95-%-Intervall {low}-{high}).",
  "The team preferred {live} in {wins} of {votes} blind turns ({share}, 95% interval {low}-{high}).":
    "In {wins} von {votes} blinden Runden war dem Team {live} lieber ({share}, 95-%-Intervall {low}-{high}).",
  "You preferred {live} in {wins} of {votes} blind turns, {ties} tied ({share}, 95% interval {low}-{high}).":
    "In {wins} von {votes} blinden Runden war dir {live} lieber, {ties} gleichauf ({share}, 95-%-Intervall {low}-{high}).",
  "The team preferred {live} in {wins} of {votes} blind turns, {ties} tied ({share}, 95% interval {low}-{high}).":
    "In {wins} von {votes} blinden Runden war dem Team {live} lieber, {ties} gleichauf ({share}, 95-%-Intervall {low}-{high}).",
  "So {live} is better than what was before it.": "{live} ist also besser als das, was davor war.",
  "So {live} is worse than what was before it. Roll back, and rank on from there.":
    "{live} ist also schlechter als das, was davor war. Setze sie zurück und reihe von dort aus weiter.",
  "That tells neither way: if there is a difference, it is small.":
    "Das spricht für keine von beiden: Wenn es einen Unterschied gibt, ist er klein.",
  "That tells neither way yet. Chat and rank on: more blind turns come by themselves.":
    "Das spricht noch für keine von beiden. Chatte und reihe weiter: Mehr blinde Runden kommen von selbst.",
  "That is not sure yet: one more blind turn like these would settle it.":
    "Das ist noch nicht sicher: Eine weitere blinde Runde wie diese würde es entscheiden.",
  "That is not sure yet: {needed} more blind turns like these would settle it.":
    "Das ist noch nicht sicher: {needed} weitere blinde Runden wie diese würden es entscheiden.",
  "Replies are as long as before; at equal length: {share}, 95% interval {low}-{high}.":
    "Die Antworten sind so lang wie zuvor; bei gleicher Länge: {share}, 95-%-Intervall {low}-{high}.",
  "Its replies are {words} words longer; at equal length: {share}, 95% interval {low}-{high}.":
    "Ihre Antworten sind {words} Wörter länger; bei gleicher Länge: {share}, 95-%-Intervall {low}-{high}.",
  "Its replies are {words} words shorter; at equal length: {share}, 95% interval {low}-{high}.":
    "Ihre Antworten sind {words} Wörter kürzer; bei gleicher Länge: {share}, 95-%-Intervall {low}-{high}.",
};
