// The whole photo, before and after, under one divider; zoom and pan by mouse, touch and keyboard.

import * as api from "./api.js";
import { h, swap } from "./dom.js";
import { STEP, centre, clamp, fit, isWhole, pan, zoom } from "./view.js";

const SIDE = 2048; // px: the longer side that is fetched for a view of the whole photo
const QUICK = 768; // px: a face's place that is there at once
const TAG = 24; // px: the room that a face's number needs above its outline
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

const stateOf = (face) => JSON.stringify([face.on, face.strength, face.guess]);

export class Viewer {
  /**
   * Puts itself into `stage` and wires `tools`, an element whose buttons have data-do: in, out, fit, actual, outlines.
   * onFace(k) is called when a face's outline is chosen.
   */
  constructor(stage, tools, { onFace }) {
    this.stage = stage;
    this.onFace = onFace;
    this.photo = null;
    this.pointers = new Map();
    this.after = h("img", { alt: "", draggable: "false" });
    this.before = h("img", { alt: "", draggable: "false" });
    this.patches = new Map(); // face -> { image, version, state }
    this.world = h("div", { class: "world" }, this.after, this.before);
    this.handle = h("div", {
      class: "divider", role: "slider", tabindex: "0", "aria-label": "How much of the photo shows before",
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-orientation": "horizontal",
    });
    this.faces = h("div", { class: "outlines" });
    this.labels = [h("span", { class: "tag left" }, "before"), h("span", { class: "tag right" }, "after")];
    stage.append(this.world, this.faces, ...this.labels, this.handle);
    this.zoomText = tools.querySelector("[data-zoom]");
    this.#listen(tools);
    new ResizeObserver(() => this.#resized()).observe(stage);
  }

  /** Show a photo of the service, and which of its faces is chosen (its number or null). */
  show(photo, chosen) {
    const [width, height] = photo.input.size;
    this.done = photo.status === "done";
    if (this.photo?.id !== photo.id || (this.done && !this.after.dataset.wanted)) this.#start(photo, width, height);
    this.photo = photo;
    if (this.done) for (const face of photo.faces) this.#patch(face);
    this.#outline(photo.faces, chosen);
    this.draw();
  }

  #start(photo, width, height) {
    const another = this.photo?.id !== photo.id;
    this.photo = photo;
    this.size = { width, height };
    this.fine = Math.max(width, height) <= SIDE;
    for (const { image } of this.patches.values()) image.remove();
    this.patches.clear();
    for (const image of [this.before, this.after]) {
      image.width = width;
      image.height = height;
    }
    this.before.alt = `${photo.name}, before`;
    this.after.alt = `${photo.name}, after`;
    if (another) {
      for (const image of [this.before, this.after]) {
        image.removeAttribute("src");
        delete image.dataset.wanted;
      }
      this.split = 0.5;
      this.view = fit(this.size, this.room());
      swap(this.before, api.beforeView(photo, SIDE));
    }
    if (this.done) {
      this.#throughTheMiddle(photo.faces);
      swap(this.after, api.afterView(photo, SIDE)).then(() => this.draw());
      for (const face of photo.faces) this.patches.set(face.index, { image: h("img"), version: photo.version, state: stateOf(face) });
    }
  }

  /** The divider through the middle one of the restored faces: what was done is seen at once. */
  #throughTheMiddle(faces) {
    const shown = faces.filter((face) => face.on); // from left to right
    if (shown.length) this.#through(shown[Math.floor(shown.length / 2)].box);
    else this.split = 0.5;
  }

  #through(box) {
    const middle = this.view.x + (box[0] + box[2] / 2) * this.view.scale;
    this.split = Math.min(0.85, Math.max(0.15, middle / this.room().width));
  }

  /** After a change of one face, its place alone is fetched and laid over the photo: quickly, then as sharp as it. */
  async #patch(face) {
    const photo = this.photo;
    const known = this.patches.get(face.index);
    const state = stateOf(face);
    if (!face.region || !known || known.state === state) return;
    known.state = state;
    const grown = photo.output.size[0] / photo.input.size[0];
    const [left, top, width, height] = face.region.map((value) => `${value / grown}px`);
    const longer = Math.max(...face.region.slice(2));
    const whole = Math.max(...photo.output.size);
    const sharp = Math.max(16, Math.round(this.fine ? longer : longer * Math.min(1, SIDE / whole)));
    for (const side of sharp > QUICK ? [QUICK, sharp] : [sharp]) {
      const image = h("img", { alt: "", draggable: "false", src: api.region(photo, face.index, side) });
      Object.assign(image.style, { left, top, width, height });
      try {
        await image.decode();
      } catch {
        return; // overtaken by another change, whose own picture follows
      }
      const shown = this.patches.get(face.index);
      if (this.photo.id !== photo.id || !shown || shown.version > photo.version) return;
      shown.image.remove();
      this.before.before(image);
      Object.assign(shown, { image, version: photo.version });
      if (shown.state !== state) return;
    }
  }

  room() {
    return { width: this.stage.clientWidth || 1, height: this.stage.clientHeight || 1 };
  }

  /** Zoom to a face. */
  approach(box) {
    this.view = centre(box, 0.45, this.size, this.room());
    this.#through(box);
    this.draw();
  }

  draw() {
    if (!this.photo) return;
    const { scale, x, y } = this.view;
    const { width } = this.room();
    this.world.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    // There is no half to show before it is there.
    const both = this.done && this.after.hasAttribute("src");
    const split = both ? this.split : 1;
    const shown = (split * width - x) / scale; // the photo's pixels left of the divider
    this.before.style.clipPath = `inset(0 ${Math.max(0, this.size.width - shown)}px 0 0)`;
    this.handle.style.left = `${split * 100}%`;
    const share = Math.round(split * 100);
    this.handle.setAttribute("aria-valuenow", share);
    this.handle.setAttribute("aria-valuetext", `${share} % before, ${100 - share} % after`);
    this.handle.hidden = !both;
    this.labels[0].hidden = split < 0.12;
    this.labels[1].hidden = split > 0.88;
    for (const button of this.faces.children) {
      const [left, top, w, tall] = JSON.parse(button.dataset.box);
      button.classList.toggle("high", y + top * scale < TAG);
      Object.assign(button.style, {
        left: `${x + left * scale}px`, top: `${y + top * scale}px`, width: `${w * scale}px`, height: `${tall * scale}px`,
      });
    }
    this.stage.classList.toggle("whole", isWhole(this.view, this.size, this.room()));
    this.zoomText.textContent = `${Math.round(scale * devicePixelRatio * 100)} %`;
    this.#refine();
  }

  /** Zoomed in, a large photo is fetched at its own size. */
  #refine() {
    const seen = this.view.scale * devicePixelRatio * Math.max(this.size.width, this.size.height);
    if (this.fine || !this.done || seen < SIDE * 1.1) return;
    this.fine = true;
    swap(this.before, api.beforeView(this.photo));
    const { photo } = this;
    const address = api.afterView(photo);
    swap(this.after, address).then(() => {
      if (this.after.getAttribute("src") !== address) return;
      // It holds all changes so far: what was laid over the smaller one would blur it.
      for (const patch of this.patches.values()) if (patch.version <= photo.version) patch.image.remove();
    });
  }

  #outline(faces, chosen) {
    const wanted = JSON.stringify(faces.map((face) => [face.index, face.box]));
    if (this.faces.dataset.made !== wanted || this.faces.dataset.of !== this.photo.id) {
      this.faces.dataset.made = wanted;
      this.faces.dataset.of = this.photo.id;
      this.faces.replaceChildren(
        ...faces.map((face) =>
          h("button", {
            type: "button", class: "outline", "data-face": face.index, "data-box": JSON.stringify(face.box),
            onclick: () => this.onFace(face.index),
          }, h("span", {}, String(face.index + 1)))),
      );
    }
    for (const [place, button] of [...this.faces.children].entries()) {
      const face = faces[place];
      const state = !face.guesses.length ? "left alone" : face.on ? "restored" : "turned off";
      button.setAttribute("aria-label", `Face ${face.index + 1} of ${faces.length}, ${state}`);
      button.setAttribute("aria-pressed", String(face.index === chosen));
      button.classList.toggle("off", state !== "restored");
    }
  }

  #resized() {
    if (!this.photo) return;
    this.view = this.stage.classList.contains("whole")
      ? fit(this.size, this.room())
      : clamp(this.view, this.size, this.room());
    this.draw();
  }

  #zoom(factor, point) {
    if (!this.photo) return;
    const room = this.room();
    this.view = zoom(this.view, factor, point ?? { x: room.width / 2, y: room.height / 2 }, this.size, room);
    this.draw();
  }

  #do(what, button) {
    if (!this.photo) return;
    if (what === "in") this.#zoom(STEP);
    if (what === "out") this.#zoom(1 / STEP);
    if (what === "actual") this.#zoom(1 / devicePixelRatio / this.view.scale);
    if (what === "fit") {
      this.view = fit(this.size, this.room());
      this.draw();
    }
    if (what === "outlines") {
      const hidden = this.faces.classList.toggle("away");
      button.setAttribute("aria-pressed", String(!hidden));
    }
  }

  #slide(split) {
    this.split = Math.min(1, Math.max(0, split));
    this.draw();
  }

  #listen(tools) {
    tools.addEventListener("click", (event) => {
      const button = event.target.closest("[data-do]");
      if (button) this.#do(button.dataset.do, button);
    });
    this.stage.addEventListener("keydown", (event) => this.#key(event));
    this.stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoom(Math.exp(-event.deltaY / (event.deltaMode ? 10 : 300)), this.#at(event));
    }, { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.#down(event));
    this.stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"])
      window.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    this.stage.addEventListener("click", (event) => {
      if (this.dragging || event.target.closest(".outline") || !this.stage.classList.contains("whole")) return;
      this.#slide(this.#at(event).x / this.room().width);
    });
    this.stage.addEventListener("dblclick", (event) => this.#zoom(2, this.#at(event)));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.photo) return;
    const key = event.key;
    if (event.target === this.handle) {
      const steps = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, PageDown: -0.1, PageUp: 0.1 };
      if (key in steps) this.#slide(this.split + steps[key]);
      else if (key === "Home") this.#slide(0);
      else if (key === "End") this.#slide(1);
      else return;
    } else if (key in ARROWS && event.target === this.stage) {
      this.view = pan(this.view, 60 * ARROWS[key][0], 60 * ARROWS[key][1], this.size, this.room());
      this.draw();
    } else if (key === "+" || key === "=") this.#do("in");
    else if (key === "-") this.#do("out");
    else if (key === "0") this.#do("fit");
    else return;
    event.preventDefault();
  }

  #at(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #down(event) {
    if (!this.photo || event.button !== 0) return;
    const at = this.#at(event);
    this.pointers.set(event.pointerId, at);
    this.pressed = at;
    this.dragging = this.pointers.size > 1;
    const near = this.done && Math.abs(at.x - this.split * this.room().width) < 24;
    // The whole photo has nowhere to go: there, every drag moves the divider.
    this.sliding = near || this.stage.classList.contains("whole");
  }

  #move(event) {
    const from = this.pointers.get(event.pointerId);
    if (!from) return;
    const to = this.#at(event);
    if (!this.dragging) {
      // A press that stays in its place is a click, also on a face's outline; a captured pointer is none.
      if (Math.hypot(to.x - this.pressed.x, to.y - this.pressed.y) < 5) return;
      this.dragging = true;
    }
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, to);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const spread = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
      const middle = { x: (to.x + other.x) / 2, y: (to.y + other.y) / 2 };
      this.#zoom(spread(to) / spread(from), middle);
      this.view = pan(this.view, (to.x - from.x) / 2, (to.y - from.y) / 2, this.size, this.room());
      this.draw();
    } else if (this.sliding) this.#slide(to.x / this.room().width);
    else {
      this.view = pan(this.view, to.x - from.x, to.y - from.y, this.size, this.room());
      this.draw();
    }
  }
}
