// Photos on their way: choosing, sending, the list with its progress, cancelling and removing.

import * as api from "./api.js";
import { ask } from "./ask.js";
import { $, h, tell } from "./dom.js";
import { chosenOptions, startOptions } from "./options.js";
import * as store from "./store.js";

const AT_ONCE = 2; // photos being sent at a time
const waiting = [];
const sending = new Map(); // local id -> AbortController
const leaving = new Set(); // ids that are being removed
let count = 0;

export function startQueue() {
  startOptions();
  $("choose").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => {
    add($("files").files);
    $("files").value = "";
  });
  document.addEventListener("paste", (event) => add(event.clipboardData?.files ?? []));
  let depth = 0;
  const dragging = (change) => {
    depth = change === 0 ? 0 : depth + change;
    document.body.classList.toggle("dragging", depth > 0);
  };
  document.addEventListener("dragenter", () => dragging(1));
  document.addEventListener("dragleave", () => dragging(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dragging(0);
    add(event.dataTransfer?.files ?? []);
  });
  store.subscribe(draw);
}

/** Which files the chooser offers first; the service is the one that judges. */
export function accept(suffixes) {
  $("files").accept = ["image/*", ...suffixes].join(",");
}

function add(files) {
  const list = [...files];
  if (!list.length) return;
  location.hash = "#/";
  const options = chosenOptions();
  const ids = list.map((file) => {
    const id = `local-${++count}`;
    waiting.push({ id, file, options });
    store.put({ id, local: true, name: file.name || "pasted picture", status: "sending", message: "", faces: [], version: 0 });
    return id;
  });
  store.choose(ids[0]);
  tell(list.length === 1 ? "One photo added." : `${list.length} photos added.`);
  pump();
}

function pump() {
  while (sending.size < AT_ONCE && waiting.length) send(waiting.shift());
  draw();
}

async function send({ id, file, options }) {
  const stop = new AbortController();
  sending.set(id, stop);
  try {
    for (;;) {
      try {
        store.sent(id, await api.upload(file, options, stop.signal));
        return;
      } catch (error) {
        if (error.status !== 429) throw error;
        await pause((error.wait || 2) * 1000, stop.signal); // the service's queue is full: the photo waits here
      }
    }
  } catch (error) {
    if (error.name === "AbortError") store.drop(id);
    else store.put({ ...store.get(id), status: "failed", message: error.message });
  } finally {
    sending.delete(id);
    pump();
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}

async function remove(photo) {
  if (photo.local) {
    const place = waiting.findIndex(({ id }) => id === photo.id);
    if (place >= 0) waiting.splice(place, 1);
    sending.get(photo.id)?.abort();
    store.drop(photo.id);
    tell(`${photo.name} is cancelled.`);
    return;
  }
  const text = "The restored picture is deleted here, and cannot be brought back. Your own file stays as it is.";
  if (photo.status === "done" && !(await ask({ title: `Remove ${photo.name}?`, text, yes: "Remove" }))) return;
  leaving.add(photo.id);
  draw();
  try {
    await api.remove(photo.id);
  } catch (error) {
    if (error.status !== 404) return tell(error.message, { bad: true });
  } finally {
    leaving.delete(photo.id);
    draw();
  }
  store.drop(photo.id);
  ($("queue").querySelector(".chosen .pick") ?? $("choose")).focus();
  tell(photo.status === "done" ? `${photo.name} is removed.` : `${photo.name} is cancelled.`);
}

/** Whether none of its faces was drawn, neither by the rules nor because somebody asked for it. */
export const leftAlone = (photo) => photo.faces.length > 0 && photo.faces.every((face) => !face.guesses.length);

/** What a photo is doing, in words. */
export function stateOf(photo) {
  if (photo.local) return photo.status === "failed" ? photo.message : sending.has(photo.id) ? "sending" : "waiting to be sent";
  const { status, outcome, progress, position } = photo;
  if (status === "queued" && store.modelIs() === "loading") return "waiting for the model to load";
  if (status === "queued") return position > 1 ? `waiting, ${position - 1} before it` : "waiting";
  if (status === "running") {
    if (progress.stage === "restoring") return `restoring face ${progress.face} of ${progress.faces}`;
    return { finding: "finding faces", writing: "writing" }[progress.stage] ?? "starting";
  }
  if (status === "failed") return photo.message;
  if (outcome === "no face") return "no face was found";
  if (leftAlone(photo)) return "no face was restored";
  const restored = photo.faces.filter((face) => face.on).length;
  const text = `${restored} of ${photo.faces.length} ${photo.faces.length === 1 ? "face" : "faces"} restored`;
  return photo.example ? `example, ${text}` : text;
}

/** 0..1, or null where it cannot be known. */
function share(photo) {
  const { stage, face, faces } = photo.progress ?? {};
  if (stage === "restoring" && faces) return (0.5 + face - 1) / (faces + 0.5);
  return stage === "writing" ? 0.97 : null;
}

const rows = new Map();

function pickPhoto(id) {
  store.choose(id);
  // In a narrow window the photo lies below the queue.
  if (matchMedia("(max-width: 48rem)").matches) $("shown-title").scrollIntoView();
}

function draw() {
  const photos = store.all();
  for (const id of [...rows.keys()]) if (!photos.some((photo) => photo.id === id)) rows.delete(id);
  const list = photos.map((photo) => {
    if (!rows.has(photo.id)) rows.set(photo.id, row(photo.id));
    rows.get(photo.id).update(photo);
    return rows.get(photo.id).element;
  });
  const shown = $("queue").children;
  if (list.length !== shown.length || list.some((element, place) => element !== shown[place])) $("queue").replaceChildren(...list);
  const done = photos.filter((photo) => photo.status === "done");
  $("all-tools").hidden = done.length === 0;
  $("counted").textContent = `${done.length} of ${photos.length} done`;
  $("all").href = api.zipFile(done);
}

function row(id) {
  const picture = h("span", { class: "blank" });
  let small = null;
  const pick = h("button", { type: "button", class: "pick", onclick: () => pickPhoto(id) });
  const state = h("p", { class: "state" });
  const bar = h("progress", { max: 1 });
  const again = h("button", { type: "button", class: "quiet", onclick: () => retry(id) }, "Try again");
  const away = h("button", { type: "button", class: "away", onclick: () => remove(store.get(id)) }, "✕");
  const element = h("li", {}, picture, h("div", {}, pick, state, bar, again), away);
  const update = (photo) => {
    const busy = ["sending", "queued", "running"].includes(photo.status);
    pick.textContent = photo.name;
    pick.title = photo.name;
    pick.setAttribute("aria-current", String(store.current()?.id === id));
    element.classList.toggle("chosen", store.current()?.id === id);
    state.textContent = leaving.has(id) ? "being removed" : stateOf(photo);
    away.disabled = leaving.has(id);
    state.classList.toggle("bad", photo.status === "failed");
    bar.hidden = photo.status !== "running" && !sending.has(id);
    bar.setAttribute("aria-label", `Progress of ${photo.name}`);
    const known = share(photo);
    if (known === null) bar.removeAttribute("value");
    else bar.value = known;
    again.hidden = photo.local || photo.status !== "failed" || !photo.input;
    again.setAttribute("aria-label", `Try ${photo.name} again`);
    away.setAttribute("aria-label", `${busy ? "Cancel" : "Remove"} ${photo.name}`);
    away.title = busy ? "Cancel" : "Remove";
    if (!photo.local && photo.input && !small && photo.status !== "failed") {
      // A file that turns out to be damaged has none.
      small = h("img", { src: api.beforeView(photo, 128), alt: "", loading: "lazy", onerror: () => small.replaceWith(picture) });
      picture.replaceWith(small);
    }
  };
  return { element, update };
}

async function retry(id) {
  try {
    await api.retry(id);
  } catch (error) {
    tell(error.message, { bad: true });
  }
}
