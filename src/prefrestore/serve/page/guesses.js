// What asks the model anew about one face: other guesses, side by side; a prompt; the map of where it guesses.

import * as api from "./api.js";
import { changeFace, rememberDrawn } from "./changes.js";
import { h, tell } from "./dom.js";
import * as store from "./store.js";

const SIDE_BY_SIDE = 4;

export class Guesses {
  constructor(id, index, preset, map) {
    this.id = id;
    this.index = index;
    this.map = map;
    this.another = h("button", { type: "button", onclick: () => this.#guess() });
    this.doubt = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.#doubt() }, "Where it guesses");
    this.doubtText = h("p", { class: "small", hidden: true });
    this.bar = h("progress", { max: 1, "aria-label": "Progress of the model" });
    this.workText = h("span", { class: "small" });
    const stop = h("button", { type: "button", class: "quiet", onclick: () => this.#stop() }, "Cancel");
    this.work = h("div", { class: "field", hidden: true }, h("div", { class: "row" }, this.workText, stop), this.bar);
    this.grid = h("div", { class: "guesses", role: "group", "aria-label": "Guesses" });
    this.prompt = h("input", { type: "text", id: "face-prompt", maxlength: "300", autocomplete: "off" });
    this.ask = h("button", { type: "submit" }, "Draw with it");
    const form = h("form", {
      class: "prompt",
      onsubmit: (event) => {
        event.preventDefault();
        if (this.prompt.value.trim()) this.#guess(this.prompt.value.trim());
        else tell("Write first what the face shows.");
      },
    }, h("label", { class: "field" }, "What the face shows", this.prompt), this.ask);
    const honest = preset === "compact" || preset === "tiny"
      ? h("p", { class: "small" }, "The built-in model does not heed this text yet: expect another guess, no more.") : null;
    this.parts = [
      h("div", { class: "row" }, this.another, this.doubt), this.work, this.doubtText, this.grid,
      h("details", {}, h("summary", {}, "Describe the face"), form, ...(honest ? [honest] : [])),
    ];
  }

  update(photo, face) {
    const work = photo.work;
    const busy = Boolean(work) && work.status !== "failed";
    const mine = Boolean(work) && work.face === this.index;
    this.another.textContent = face.guesses.length ? "Another guess" : "Restore it anyway";
    for (const button of [this.another, this.ask]) button.disabled = busy;
    this.doubt.disabled = busy && !face.uncertainty;
    this.doubt.hidden = !face.guesses.length;
    this.work.hidden = !busy || !mine;
    if (busy && mine) {
      const what = work.kind === "guesses" ? "guess" : "sample";
      this.workText.textContent = work.status === "queued" ? "waiting for the model" : `${what} ${Math.min(work.done + 1, work.of)} of ${work.of}`;
      this.bar.value = (work.done + 0.2) / work.of;
    }
    if (mine && work.status === "failed" && this.failed !== work.message) tell(work.message, { bad: true });
    this.failed = mine && work.status === "failed" ? work.message : null;
    this.#drawMap(photo, face);
    this.#drawGrid(photo, face);
  }

  #drawMap(photo, face) {
    const made = Boolean(face.uncertainty);
    if (this.wanted && made && !this.map.src) this.map.src = api.doubtMap(photo, this.index);
    this.map.hidden = !(this.wanted && made);
    this.doubt.setAttribute("aria-pressed", String(!this.map.hidden));
    this.doubtText.hidden = this.map.hidden;
    if (made) {
      const levels = (face.uncertainty.mean * 255).toFixed(1);
      this.doubtText.textContent = `Violet to yellow: where four samples differ, the picture is a guess. On average they differ by ${levels} of 255 levels.`;
    }
  }

  #drawGrid(photo, face) {
    this.grid.hidden = face.guesses.length < 2;
    const key = JSON.stringify(face.guesses);
    if (this.grid.dataset.key !== key) {
      const held = this.grid.contains(document.activeElement) ? document.activeElement.dataset.number : null;
      this.grid.dataset.key = key;
      this.grid.replaceChildren(...face.guesses.map((guess) => this.#guessButton(photo, guess)));
      if (held !== null) this.grid.querySelector(`[data-number="${held}"]`)?.focus();
    }
    for (const button of this.grid.children)
      button.setAttribute("aria-pressed", String(Number(button.dataset.number) === face.guess));
  }

  #guessButton(photo, guess) {
    const alike = typeof guess.similarity === "number" ? guess.similarity.toFixed(2) : "unknown";
    const warned = guess.warnings.length ? ", with a warning" : "";
    const name = `Guess ${guess.number + 1}, likeness ${alike}${warned}${guess.prompt ? `, “${guess.prompt}”` : ""}`;
    return h("button", {
      type: "button", "data-number": guess.number, "aria-label": name, title: `seed ${guess.seed}`,
      onclick: () => changeFace(store.get(this.id), this.index, { guess: guess.number }, { label: `guess of face ${this.index + 1}` }),
    },
    h("img", { src: api.faceAfter(photo, this.index, guess.number), alt: "" }),
    h("span", {}, `${guess.warnings.length ? "⚠ " : ""}${alike}`));
  }

  /** As many seeds as make up a row of four with what is there; a face that was left alone gets one. */
  async #guess(prompt = null) {
    const photo = store.get(this.id);
    const { guesses } = photo.faces[this.index];
    const first = photo.options.seed ?? 0;
    const next = Math.max(first, ...guesses.map((guess) => guess.seed + 1));
    const wanted = guesses.length === 0 ? 1 : prompt ? 1 : SIDE_BY_SIDE - (guesses.length % SIDE_BY_SIDE);
    const seeds = Array.from({ length: wanted }, (_, place) => next + place);
    const asked = await this.#call(() => api.guess(this.id, this.index, { prompt, seeds }));
    if (asked && guesses.length === 0) rememberDrawn(photo, this.index);
  }

  async #doubt() {
    const { uncertainty } = store.get(this.id).faces[this.index];
    this.wanted = this.map.hidden;
    if (!uncertainty) await this.#call(() => api.doubt(this.id, this.index));
    else this.update(store.get(this.id), store.get(this.id).faces[this.index]);
  }

  async #stop() {
    await this.#call(() => api.stopWork(this.id));
    this.another.focus();
  }

  async #call(run) {
    try {
      const photo = await run();
      if (photo) store.put(photo);
      return true;
    } catch (error) {
      tell(error.message, { bad: true });
      return false;
    }
  }
}
