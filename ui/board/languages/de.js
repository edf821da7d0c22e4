// German, a file for each screen.

import chat from "./de_chat.js";
import evidence from "./de_evidence.js";
import page from "./de_page.js";
import people from "./de_people.js";
import queue from "./de_queue.js";
import ratings from "./de_ratings.js";
import round from "./de_round.js";
import training from "./de_training.js";

export default { ...chat, ...evidence, ...page, ...people, ...queue, ...ratings, ...round, ...training };
