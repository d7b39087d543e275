// What the page knows: the photos in the order they came, which of them is shown, and what can be undone.

const photos = new Map();
const listeners = new Set();
const undos = new Map(); // id -> [{ label, run, key }], the newest last
let chosen = null;
let face = null;
let model = "ready"; // or loading, or failed

function changed() {
  for (const listener of listeners) listener();
}

export const subscribe = (listener) => listeners.add(listener);
export const get = (id) => photos.get(id);
export const current = () => photos.get(chosen) ?? null;
export const currentFace = () => face;

export const modelIs = () => model;

export function setModel(status) {
  model = status;
  changed();
}

const places = new Map(); // id -> number: a row stays where it appeared, also when it is sent

function place(id, photo, at = places.get(id) ?? places.size) {
  places.set(id, at);
  photos.set(id, photo);
}

/** In the order they came. */
export const all = () => [...photos.values()].sort((one, other) => places.get(one.id) - places.get(other.id));

const early = new Map(); // documents whose upload is not answered yet: its row is there already

const expected = (photo) =>
  [...photos.values()].some((other) => other.local && other.status === "sending" && other.name === photo.name);

/** Documents that belong to no upload of this page after all. */
function release() {
  for (const [id, photo] of early) {
    if (expected(photo)) continue;
    early.delete(id);
    place(id, photo);
  }
}

/** Add or replace; a document that was overtaken by a newer picture is dropped. */
export function put(photo) {
  const known = photos.get(photo.id);
  if (known && known.version > photo.version) return;
  if (!known && !photo.local && expected(photo)) {
    early.set(photo.id, photo);
    return;
  }
  place(photo.id, photo);
  release();
  if (chosen === null) chosen = photo.id;
  changed();
}

/** What waited here as `id` is now known to the service; its events may have been faster than its answer. */
export function sent(id, photo) {
  photos.delete(id);
  place(photo.id, photos.get(photo.id) ?? early.get(photo.id) ?? photo, places.get(id));
  early.delete(photo.id);
  release();
  if (chosen === id) chosen = photo.id;
  changed();
}

export function drop(id) {
  early.delete(id);
  if (!photos.has(id)) return;
  const order = all().map((photo) => photo.id);
  const at = order.indexOf(id);
  photos.delete(id);
  undos.delete(id);
  release();
  if (chosen === id) {
    chosen = order[at + 1] ?? order[at - 1] ?? null;
    face = null;
  }
  changed();
}

export function choose(id) {
  if (chosen === id) return;
  chosen = id;
  face = null;
  changed();
}

export function chooseFace(index) {
  face = index;
  changed();
}

/** Remember how to take a change back. One with the `key` of the last (a slider on its way) joins it. */
export function remember(id, label, run, key = null) {
  const stack = undos.get(id) ?? [];
  if (key !== null && stack.at(-1)?.key === key) return;
  stack.push({ label, run, key });
  undos.set(id, stack);
  changed();
}

export const undoable = (id) => undos.get(id)?.at(-1) ?? null;

export function takeUndo(id) {
  const taken = undos.get(id)?.pop() ?? null;
  changed();
  return taken;
}
