// German of a round's timeline: the sentences of chatrlhf/loop.

export default {
  // what happened
  "Training from {version} on {rankings} rankings of {prompts} prompts and {demonstrations} demonstrations.":
    "Training ab {version} mit {rankings} Reihungen zu {prompts} Prompts und {demonstrations} geschriebenen Antworten.",
  "Before training, the reward model of {version} ordered {right} of {pairs} pairs in {rankings} new rankings as you did ({share}, 95% interval {low}-{high}; 50% is chance).":
    "Vor dem Training reihte das Belohnungsmodell von {version} {right} von {pairs} Paaren aus {rankings} neuen Reihungen wie du ({share}, 95%-Intervall {low}-{high}; 50% ist Zufall).",
  "The live reward model could not be tested: {error}": "Das aktive Belohnungsmodell ließ sich nicht prüfen: {error}",
  "Learned {count} demonstrations: loss {before} -> {after} nats per token.":
    "{count} geschriebene Antworten gelernt: Verlust {before} -> {after} Nats je Token.",
  "PPO goes on at iteration {iteration}.": "PPO geht mit Iteration {iteration} weiter.",
  "{version} is live.": "{version} ist aktiv.",
  "Mean score {before} -> {after} at {kl} nats.": "Mittlere Note {before} -> {after} bei {kl} Nats.",
  "Nothing else was asked for.": "Mehr war nicht verlangt.",
  // the reward
  "A reward adapter was trained: held-out loss {before} -> {after}.":
    "Ein Belohnungsadapter wurde trainiert: Verlust auf zurückgehaltenen Reihungen {before} -> {after}.",
  "Training the reward adapter did not help (held-out loss {before} -> {after}), so the head alone is used.":
    "Den Belohnungsadapter zu trainieren half nicht (Verlust auf zurückgehaltenen Reihungen {before} -> {after}), also wird nur der Kopf verwendet.",
  "The live version's reward model cannot be compared: {error}":
    "Das Belohnungsmodell der aktiven Version lässt sich nicht vergleichen: {error}",
  'The classifier {name} scores replies by its label "{label}" with weight {weight}.':
    "Der Klassifikator {name} benotet Antworten nach seinem Etikett „{label}“ mit Gewicht {weight}.",
  "The reward is taken as it is given: rankings are no part of it.":
    "Die Belohnung wird genommen, wie sie gegeben ist: Reihungen gehören nicht dazu.",
  "Where several people ranked the same replies, they agree on {alike} of {pairs} pairs ({share}); no reward model can agree with all of them.":
    "Wo mehrere Leute dieselben Antworten reihten, sind sie sich bei {alike} von {pairs} Paaren einig ({share}); kein Belohnungsmodell kann es allen recht machen.",
  "Your rankings mostly follow length: the reward model scores longer replies higher (correlation {correlation}). If that is not what you mean, rank replies of similar length too.":
    "Deine Reihungen gehen meist nach der Länge: Das Belohnungsmodell gibt längeren Antworten mehr (Korrelation {correlation}). Wenn das nicht gemeint ist, reihe auch ähnlich lange Antworten.",
  "Your rankings mostly follow length: the reward model scores shorter replies higher (correlation {correlation}). If that is not what you mean, rank replies of similar length too.":
    "Deine Reihungen gehen meist nach der Länge: Das Belohnungsmodell gibt kürzeren Antworten mehr (Korrelation {correlation}). Wenn das nicht gemeint ist, reihe auch ähnlich lange Antworten.",
  // labels
  'Replies were labelled "{name}", but reward.weights has no weight for {term}, so it is not used.':
    "Antworten haben das Etikett „{name}“, aber reward.weights hat kein Gewicht für {term}, also wird es nicht verwendet.",
  'The label "{name}" is not used yet: {positives} replies have it and {negatives} are known not to; it needs {needed} of both.':
    "Das Etikett „{name}“ wird noch nicht verwendet: {positives} Antworten haben es, von {negatives} weiß man, dass nicht; es braucht je {needed}.",
  'The label "{name}", learned from {positives} replies that have it and {negatives} that have not, tells unseen replies apart with an area under the curve of {area}; chance stays below {needed}.':
    "Das Etikett „{name}“, gelernt aus {positives} Antworten mit und {negatives} ohne, trennt ungesehene Antworten mit einer Fläche unter der Kurve von {area}; Zufall bleibt unter {needed}.",
  "It is used with weight {weight}.": "Es wird mit Gewicht {weight} verwendet.",
  "So it is not used. Label replies to more prompts.":
    "Also wird es nicht verwendet. Gib Antworten auf mehr Prompts ein Etikett.",
  // gates
  "On prompts it was not fitted on, the reward model orders {right} of {pairs} pairs as you did ({share}, 95% interval {low}-{high}; its odds are off by {error} on average).":
    "Bei Prompts, an die es nicht angepasst wurde, reiht das Belohnungsmodell {right} von {pairs} Paaren wie du ({share}, 95%-Intervall {low}-{high}; seine Wahrscheinlichkeiten liegen im Mittel um {error} daneben).",
  "That is better than chance.": "Das ist besser als Zufall.",
  "That is not surely better than chance, so nothing is trained against it or promoted. More rankings make it better.":
    "Das ist nicht sicher besser als Zufall, also wird nichts danach trainiert oder übernommen. Mehr Reihungen machen es besser.",
  "The reward model could not be checked: no held-out ranking orders two replies. Rank more prompts.":
    "Das Belohnungsmodell ließ sich nicht prüfen: Keine zurückgehaltene Reihung ordnet zwei Antworten. Reihe mehr Prompts.",
  "Of the {pairs} pairs that are newer than the live version's reward model, it orders {new} as you did, the old one {old}.":
    "Von den {pairs} Paaren, die neuer sind als das Belohnungsmodell der aktiven Version, reiht es {new} wie du, das alte {old}.",
  "It is surely worse (95% interval of the difference {low} to {high}).":
    "Es ist sicher schlechter (95%-Intervall des Unterschieds {low} bis {high}).",
  "It is not surely worse (95% interval of the difference {low} to {high}).":
    "Es ist nicht sicher schlechter (95%-Intervall des Unterschieds {low} bis {high}).",
  "Mean score on held-out prompts {before} -> {after}.": "Mittlere Note bei zurückgehaltenen Prompts {before} -> {after}.",
  "Distance from the parent {kl} nats a reply; the budget is {budget}.":
    "Abstand von der Vorgängerin {kl} Nats je Antwort; erlaubt sind {budget}.",
  "Repeated phrases {before} -> {after} (at most {most} more).":
    "Wiederholte Wortfolgen {before} -> {after} (höchstens {most} mehr).",
  "Replies that end by themselves {before} -> {after} (at most {most} fewer).":
    "Antworten, die von selbst enden, {before} -> {after} (höchstens {most} weniger).",
  "Empty replies {before} -> {after} (at most {most} more).": "Leere Antworten {before} -> {after} (höchstens {most} mehr).",
  "Loss on demonstrations {before} -> {after} nats per token.":
    "Verlust auf geschriebenen Antworten {before} -> {after} Nats je Token.",
  "Not promoted:": "Nicht übernommen:",
  "Not promoted, because of {gates}:": "Nicht übernommen, wegen {gates}:",
  // what the numbers mean
  "The score rose, and something else with it.": "Die Note stieg, und mit ihr noch etwas.",
  "Replies went from {before} to {after} tokens.": "Antworten gingen von {before} auf {after} Token.",
  "Repeated phrases went from {before} to {after}.": "Wiederholte Wortfolgen gingen von {before} auf {after}.",
  "Replies that end by themselves went from {before} to {after}.":
    "Antworten, die von selbst enden, gingen von {before} auf {after}.",
  "The reward model is less sure (spread {before} to {after}).":
    "Das Belohnungsmodell ist weniger sicher (Streuung {before} auf {after}).",
  "If that is not what you want, the reward is being gamed: read the samples, roll back, and rank such replies.":
    "Wenn das nicht gewollt ist, wird die Belohnung ausgetrickst: Lies die Proben, geh zurück und reihe solche Antworten.",
  "The last {rounds} rounds changed the score by {gains}: they no longer improve. Rankings of other prompts, or demonstrations, take it further than more rounds.":
    "Die letzten {rounds} Trainingsrunden änderten die Note um {gains}: Sie verbessern nichts mehr. Reihungen zu anderen Prompts oder geschriebene Antworten bringen mehr als weitere Trainingsrunden.",
  // nothing to train on yet
  "There are {count} rankings that order replies, of {prompts} prompts; the reward model needs {needed}, of at least two prompts. Rank more replies.":
    "Es gibt {count} Reihungen, die Antworten ordnen, zu {prompts} Prompts; das Belohnungsmodell braucht {needed}, zu mindestens zwei Prompts. Reihe mehr Antworten.",
  "No term of the reward can be used yet. Label or rank more replies, or set reward.classifier.":
    "Noch lässt sich kein Teil der Belohnung verwenden. Gib mehr Antworten Etiketten oder Ränge, oder setze reward.classifier.",
  "There are no demonstrations yet. Write a better reply with E in the chat.":
    "Es gibt noch keine geschriebenen Antworten. Schreib mit E im Chat eine bessere.",
  "There is no prompt to answer: none has at most {room} tokens, which is reward.max_tokens less ppo.max_new_tokens. Raise the one or lower the other.":
    "Es gibt keinen Prompt zu beantworten: Keiner hat höchstens {room} Token, das ist reward.max_tokens weniger ppo.max_new_tokens. Erhöhe das eine oder senke das andere.",
};
