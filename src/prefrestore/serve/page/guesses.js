// What asks the model anew about one face: other guesses, side by side; a prompt; the map of where it guesses.

import * as api from "./api.js";
import { changeFace, rememberDrawn } from "./changes.js";
import { h, tell } from "./dom.js";
import * as store from "./store.js";

const SIDE_BY_SIDE = 4;
const FIDELITIES = [["", "as usual"], ["0", "all detail"], ["0.5", "in between"], ["1", "faithful and smooth"]];

export class Guesses {
  /** `map`: the picture that shows the map; `draw()`: draws the panel again; `zoom`: one more button for the row. */
  constructor(id, index, { preset, map, draw, zoom }) {
    this.id = id;
    this.index = index;
    this.map = map;
    this.draw = draw;
    this.another = h("button", { type: "button", onclick: () => this.#guess() });
    this.doubt = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.#doubt() }, "Where it guesses");
    this.doubtText = h("p", { class: "small", hidden: true });
    this.bar = h("progress", { max: 1, "aria-label": "Progress of the model" });
    this.workText = h("span", { class: "small" });
    const stop = h("button", { type: "button", class: "quiet", onclick: () => this.#stop() }, "Cancel");
    this.work = h("div", { class: "field", hidden: true }, h("div", { class: "row" }, this.workText, stop), this.bar);
    this.grid = h("div", { class: "guesses", role: "group", "aria-label": "Guesses" });
    this.hint = h("p", { class: "small" }, preset === "compact"
      ? "Another seed changes little in the built-in model. “Draw it differently” changes more." : "");
    this.prompt = h("input", { type: "text", id: "face-prompt", maxlength: "300", autocomplete: "off" });
    this.fidelity = h("select", { id: "face-fidelity" },
      ...FIDELITIES.map(([value, text]) => h("option", { value }, text)));
    this.ask = h("button", { type: "submit" }, "Draw it so");
    const form = h("form", {
      class: "prompt",
      onsubmit: (event) => {
        event.preventDefault();
        this.#guess({ prompt: this.prompt.value.trim() || null, fidelity: this.fidelity.value ? Number(this.fidelity.value) : null });
      },
    },
    h("label", { class: "field" }, "Detail or faithfulness", this.fidelity),
    h("label", { class: "field" }, "What the face shows", this.prompt),
    preset === "compact" ? h("p", { class: "small" }, "The built-in model does not heed this text yet; the choice above it does.") : null,
    this.ask);
    this.parts = [
      h("div", { class: "row" }, this.another, this.doubt, zoom), this.work, this.doubtText, this.grid, this.hint,
      h("details", {}, h("summary", {}, "Draw it differently"), form),
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
    this.hint.hidden = this.grid.hidden || !this.hint.textContent;
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
    const fidelity = FIDELITIES.find(([value]) => value !== "" && Number(value) === guess.fidelity)?.[1];
    const made = [fidelity, guess.prompt && `“${guess.prompt}”`].filter(Boolean).join(", ");
    const warned = guess.warnings.length > 0;
    return h("button", {
      type: "button", "data-number": guess.number, title: `seed ${guess.seed}`,
      onclick: () => changeFace(store.get(this.id), this.index, { guess: guess.number }, { label: `guess of face ${this.index + 1}` }),
    },
    h("img", { src: api.faceAfter(photo, this.index, guess.number), alt: `Guess ${guess.number + 1}` }),
    h("span", {}, `likeness ${alike}`), made ? h("span", {}, made) : null, warned ? h("span", {}, "with a warning") : null);
  }

  /** As many seeds as make up a row of four with what is there; one where the user says how, or the rules said no. */
  async #guess(how = {}) {
    const photo = store.get(this.id);
    const { guesses } = photo.faces[this.index];
    const first = photo.options.seed ?? 0;
    const steered = Boolean(how.prompt) || typeof how.fidelity === "number";
    const next = steered ? first : Math.max(first, ...guesses.map((guess) => guess.seed + 1));
    const wanted = guesses.length === 0 || steered ? 1 : SIDE_BY_SIDE - (guesses.length % SIDE_BY_SIDE);
    const seeds = Array.from({ length: wanted }, (_, place) => next + place);
    const asked = await this.#call(() => api.guess(this.id, this.index, { ...how, seeds }));
    if (asked && guesses.length === 0) rememberDrawn(photo, this.index);
  }

  async #doubt() {
    const { uncertainty } = store.get(this.id).faces[this.index];
    this.wanted = this.map.hidden;
    if (!uncertainty) await this.#call(() => api.doubt(this.id, this.index));
    else this.draw();
  }

  async #stop() {
    await this.#call(() => api.stopWork(this.id));
    this.another.focus();
  }

  /** What the model does is told by the service's events; an answer to this call may be older than they are. */
  async #call(run) {
    try {
      await run();
      return true;
    } catch (error) {
      tell(error.message, { bad: true });
      return false;
    }
  }
}
