// Changing a face: strength, on or off, which guess. One request a photo at a time; what comes meanwhile is joined and
// sent when the answer is there, so a slider on its way never piles up.

import * as api from "./api.js";
import { tell } from "./dom.js";
import * as store from "./store.js";

const waiting = new Map(); // id -> Map(face -> change)
const busy = new Set();

/** Apply `change` ({strength}, {on} or {guess}) to a face, and remember how to take it back. */
export function changeFace(photo, face, change, { label, key = null }) {
  const known = photo.faces[face];
  const before = Object.fromEntries(Object.keys(change).map((name) => [name, known[name]]));
  store.remember(photo.id, label, () => send(photo.id, face, before), key);
  return send(photo.id, face, change);
}

/** A face that the rules left alone is drawn and turned on by the service; taking it back turns it off. */
export function rememberDrawn(photo, face) {
  store.remember(photo.id, `face ${face + 1} restored anyway`, () => send(photo.id, face, { on: false }));
}

/** Whether a change is on its way, so that what the service last said is not what the user last did. */
export const pending = (id) => busy.has(id);

async function send(id, face, change) {
  const changes = waiting.get(id) ?? new Map();
  changes.set(face, { ...changes.get(face), ...change });
  waiting.set(id, changes);
  if (busy.has(id)) return;
  busy.add(id);
  try {
    while (waiting.has(id)) {
      const now = waiting.get(id);
      waiting.delete(id);
      const photo = await api.change(id, [...now].map(([index, values]) => ({ index, ...values })));
      if (!waiting.has(id)) busy.delete(id); // before the page draws what it says
      const known = store.get(id);
      // An event with the same picture may have come first, and may know more.
      if (known) store.put(known.version < photo.version ? photo : known);
    }
  } catch (error) {
    waiting.delete(id);
    busy.delete(id);
    tell(error.message, { bad: true });
    if (store.get(id)) store.put(store.get(id)); // draws again what holds
  }
}

export function undo() {
  const photo = store.current();
  const taken = photo && store.takeUndo(photo.id);
  if (!taken) return;
  taken.run();
  tell(`Undone: ${taken.label}.`);
}
