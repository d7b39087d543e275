// The panel of one face: before and after, on or off, strength, likeness. What asks the model anew is in guesses.js.

import * as api from "./api.js";
import { changeFace, pending } from "./changes.js";
import { $, h, percent, swap } from "./dom.js";
import { Guesses } from "./guesses.js";
import * as store from "./store.js";

let panel = null; // of the face that is shown

/** Build or refresh the panel; `approach(box)` shows the face in the photo. */
export function drawFace(approach, preset) {
  const photo = store.current();
  const face = photo?.status === "done" ? photo.faces[store.currentFace()] : undefined;
  $("face").hidden = !face;
  if (!face) {
    panel = null;
    $("face").replaceChildren();
    return;
  }
  const key = `${photo.id} ${face.index}`;
  if (panel?.key !== key) {
    panel = new Panel(key, photo.id, face.index, approach, preset);
    $("face").replaceChildren(...panel.parts);
  }
  panel.update(photo, face);
}

export function closeFace() {
  const index = store.currentFace();
  store.chooseFace(null);
  document.querySelector(`.outline[data-face="${index}"]`)?.focus();
}

function reasonOf(face, drawn) {
  if (!drawn) return `Left alone: ${face.reason}.`;
  if (face.late) return `By the rules it was left alone: ${face.reason}.`;
  return `By the rules it began at ${percent(face.first_strength)} strength: ${face.reason}.`;
}

class Panel {
  constructor(key, id, index, approach, preset) {
    this.key = key;
    this.drag = false;
    const photo = () => store.get(id);
    this.title = h("h2", { id: "face-title", tabindex: "-1" });
    const close = h("button", { type: "button", class: "quiet close", "aria-label": "Close the face", onclick: closeFace }, "✕");
    const zoom = h("button", { type: "button", class: "quiet", onclick: () => approach(photo().faces[index].box) }, "Show in the photo");
    this.reason = h("p", { class: "small" });

    this.before = h("img", { src: api.faceBefore({ id }, index), alt: `Face ${index + 1} before` });
    this.under = h("img", { src: api.faceBefore({ id }, index), alt: "" });
    this.after = h("img", { class: "over", alt: `Face ${index + 1} after` });
    // While the slider moves, the browser blends (in sRGB); the service's own blend (in linear light) follows.
    this.exact = h("img", { class: "over", alt: "", hidden: true });
    this.map = h("img", { class: "over map", alt: `Face ${index + 1}: where the model guesses`, hidden: true });
    this.blend = h("span", { class: "blend" }, this.under, this.after, this.exact, this.map);
    this.caption = h("figcaption", {});
    const pair = h("div", { class: "pair" },
      h("figure", {}, this.before, h("figcaption", {}, "before")),
      h("figure", {}, this.blend, this.caption));

    this.on = h("input", {
      type: "checkbox", role: "switch", id: "face-on",
      onchange: () => changeFace(photo(), index, { on: this.on.checked },
        { label: `face ${index + 1} ${this.on.checked ? "on" : "off"}` }),
    });
    this.strength = h("input", {
      type: "range", id: "face-strength", min: "0", max: "100", step: "1",
      oninput: () => this.#slide(photo(), index),
      onchange: () => {
        this.drag = false;
        if (!pending(id)) this.update(photo(), photo().faces[index]);
      },
    });
    this.shown = h("output", { for: "face-strength" });
    this.settings = h("div", {},
      h("label", { class: "switch" }, this.on, "Restore this face"),
      h("div", { class: "field" },
        h("div", { class: "row" }, h("label", { for: "face-strength" }, "Strength"), this.shown), this.strength));

    this.meter = h("meter", { min: "0", max: "1", low: "0.3", "aria-label": "Likeness to the face before" });
    this.likeness = h("p", {});
    this.warnings = h("div", { class: "likeness" });
    this.alike = h("div", { class: "likeness" }, this.likeness, this.meter, this.warnings);
    const draw = () => this.update(photo(), photo().faces[index]);
    this.guesses = new Guesses(id, index, { preset, map: this.map, draw, zoom });
    this.parts = [
      h("div", { class: "row spread" }, this.title, close), this.reason, pair, this.settings, this.alike,
      ...this.guesses.parts,
    ];
  }

  #slide(photo, index) {
    const strength = Number(this.strength.value) / 100;
    this.#blend(strength);
    this.exact.hidden = true;
    this.drag = true;
    // The pushes of one drag are one step to undo, and so are strokes of the arrow keys one after the other.
    this.run ??= {};
    clearTimeout(this.pause);
    this.pause = setTimeout(() => { this.run = null; }, 1000);
    changeFace(photo, index, { strength }, { label: `strength of face ${index + 1}`, key: this.run });
  }

  #blend(strength) {
    this.after.style.opacity = strength;
    this.shown.textContent = percent(strength);
    this.strength.setAttribute("aria-valuetext", percent(strength));
  }

  update(photo, face) {
    const drawn = face.guesses.length > 0;
    const chosen = face.guesses.find((guess) => guess.number === face.guess);
    this.title.textContent = `Face ${face.index + 1} of ${photo.faces.length}`;
    this.reason.hidden = !face.reason;
    this.reason.textContent = reasonOf(face, drawn);
    this.settings.hidden = !drawn;
    this.on.checked = face.on;
    this.strength.disabled = !face.on;
    this.blend.classList.toggle("off", !face.on);
    if (!this.drag && !pending(photo.id)) {
      this.strength.value = Math.round(face.strength * 100);
      this.#blend(face.strength);
    }
    this.after.hidden = !chosen;
    this.guesses.update(photo, face);
    this.caption.textContent = !this.map.hidden ? "where it guesses" : !drawn ? "left as it is" : face.on ? "after" : "after (turned off)";
    if (chosen) {
      const address = api.faceAfter(photo, face.index, face.guess);
      if (this.after.getAttribute("src") !== address) this.after.src = address;
      this.#settle(photo, face);
    }
    this.alike.hidden = !drawn;
    if (drawn) this.#alike(face);
  }

  async #settle(photo, face) {
    const address = api.faceAfter(photo, face.index, face.guess, face.strength);
    if (this.exact.getAttribute("src") !== address) this.exact.hidden = true;
    await swap(this.exact, address);
    this.exact.hidden = this.drag || this.exact.getAttribute("src") !== address;
  }

  #alike(face) {
    const known = typeof face.similarity === "number";
    this.meter.hidden = !known;
    if (known) this.meter.value = Math.max(0, face.similarity);
    this.likeness.textContent = known
      ? `Likeness ${face.similarity.toFixed(2)}: how alike a face recogniser finds the face before and the restored one.`
      : "The likeness could not be measured.";
    const said = face.warnings.map((warning) => `Take care: ${warning}.`);
    if (this.warnings.dataset.said === JSON.stringify(said)) return;
    this.warnings.dataset.said = JSON.stringify(said);
    this.warnings.replaceChildren(
      ...(said.length
        ? said.map((text) => h("p", { class: "warning" }, text))
        : [h("p", { class: "small" }, "No warning. A restored face is still no evidence of who somebody was.")]));
  }
}
