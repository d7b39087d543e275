// Wires the page together: the two tabs, the colours, the service's events.

import * as api from "./api.js";
import { undo } from "./changes.js";
import { $, capital, tell } from "./dom.js";
import { closeFace, drawFace } from "./face.js";
import { leave, startJudging, visit } from "./judge.js";
import { startQueue, accept, leftAlone, stateOf } from "./queue.js";
import * as store from "./store.js";
import { askForToken } from "./token.js";
import { Viewer } from "./viewer.js";

let preset = null;
let lost = false;

const viewer = new Viewer($("stage"), $("view-tools"), { onFace: openFace });
const approach = (box) => {
  viewer.approach(box);
  $("stage").focus();
};

function openFace(index) {
  if (store.current()?.status !== "done") return;
  store.chooseFace(index);
  $("face-title").focus();
}

function draw() {
  const photo = store.current();
  const seen = Boolean(photo?.input?.size) && photo.status !== "failed";
  $("nothing").hidden = Boolean(photo);
  for (const id of ["stage", "view-tools", "stage-help"]) $(id).hidden = !seen;
  $("photo-tools").hidden = photo?.status !== "done";
  $("shown-title").textContent = photo ? photo.name : "No photo yet";
  drawSaid(photo);
  if (photo?.status === "done") {
    $("download").href = api.photoFile(photo);
    $("record").href = api.recordFile(photo);
    const last = store.undoable(photo.id);
    $("undo").disabled = !last;
    $("undo").title = last ? `Undo: ${last.label}` : "Nothing to undo";
  }
  if (seen) viewer.show(photo, store.currentFace());
  drawFace(approach, preset);
}

function drawSaid(photo) {
  let text = "";
  if (photo?.status === "done") {
    const warned = photo.faces.filter((face) => face.on && face.warnings.length).length;
    // Why faces are left alone is told with each: the message is for programs, which count faces from 0.
    if (!photo.faces.length) text = photo.message;
    else if (store.currentFace() !== null) text = "";
    else if (leftAlone(photo)) text = "No face was restored: choose one to read why, or to restore it anyway.";
    else if (warned) text = `${warned === 1 ? "One face has" : `${warned} faces have`} a warning: choose the face to read it.`;
    else text = "Choose a face to see it large and to change it.";
  } else if (photo) text = photo.status === "failed" ? photo.message : `${capital(stateOf(photo))} …`;
  $("said").hidden = !text;
  $("said").textContent = text;
  $("said").classList.toggle("bad", photo?.status === "failed");
}

/** Say once that a photo is finished. */
function announce(photo) {
  const known = store.get(photo.id);
  if (known && known.status !== photo.status && ["done", "failed"].includes(photo.status))
    tell(`${photo.name}: ${stateOf(photo)}.`, { bad: photo.status === "failed" });
  store.put(photo);
}

/** Drop what was removed while nobody listened; everything else comes as events. */
async function reconcile(said = {}) {
  try {
    const { restorations } = await api.list();
    const there = new Set(restorations.map((photo) => photo.id));
    for (const photo of store.all()) if (!photo.local && !there.has(photo.id)) store.drop(photo.id);
  } catch (error) {
    refused(error, said);
  }
}

function refused(error, said = {}) {
  if (error.status === 401) askForToken();
  else tell(error.message, { bad: true, ...said });
}

function route() {
  const judging = location.hash === "#/judge";
  $("restore").hidden = judging;
  $("judge").hidden = !judging;
  for (const link of document.querySelectorAll("nav a")) {
    if ((link.hash === "#/judge") === judging) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = judging ? "Which is better? · prefrestore" : "prefrestore";
  if (judging) visit();
  else leave();
}

function startTheme() {
  const select = $("theme");
  select.value = document.documentElement.dataset.theme ?? "";
  select.addEventListener("change", () => {
    if (select.value) document.documentElement.dataset.theme = select.value;
    else delete document.documentElement.dataset.theme;
    try {
      localStorage.setItem("theme", select.value);
    } catch {
      // Without storage the choice holds for this visit.
    }
  });
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range], [type=checkbox]), select");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !event.shiftKey && !typing) {
    event.preventDefault();
    undo();
  } else if (event.key === "Escape" && !$("restore").hidden && store.currentFace() !== null && !$("ask").open) closeFace();
});
$("undo").addEventListener("click", undo);
window.addEventListener("hashchange", route);

startTheme();
startQueue();
const judgements = startJudging();
store.subscribe(draw);
route();
draw();
api.listen({
  restoration: announce,
  removed: ({ id }) => store.drop(id),
  judgements,
  model: ({ status, message }) => {
    store.setModel(status);
    if (status === "failed") tell(message, { bad: true });
  },
  open: () => {
    if (lost) {
      tell("", { bad: true, stays: true });
      tell("Connected again.");
    }
    lost = false;
    reconcile();
  },
  lost: () => {
    if (!lost) reconcile({ stays: true }); // its failure says why, for as long as it lasts
    lost = true;
  },
});
api.info().then((said) => {
  preset = said.preset;
  accept(said.accepts);
}, refused);
