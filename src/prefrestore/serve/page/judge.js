// Which is better? Two restorations of one face, blind and in random order; what is chosen is what the scorer learns.

import * as api from "./api.js";
import { ask } from "./ask.js";
import { $, capital, h, percent, tell } from "./dom.js";

const KEYS = { ArrowLeft: "first", ArrowRight: "second", t: "tie", T: "tie", s: "skip", S: "skip" };
let page = null;
let visible = false;

/** Builds the page once; returns what takes the service's counts. */
export function startJudging() {
  page = new JudgePage($("judge"));
  document.addEventListener("keydown", (event) => {
    if (!visible || event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("ask").open) return;
    if (event.target.matches("input, select") || !(event.key in KEYS)) return;
    event.preventDefault();
    page.choose(KEYS[event.key]);
  });
  return (counts) => page.count(counts);
}

export function visit() {
  visible = true;
  page.start();
}

export function leave() {
  visible = false;
}

class JudgePage {
  constructor(root) {
    this.pair = null;
    this.busy = false;
    const choice = (name, key, kind, ...text) =>
      h("button", { type: "button", class: kind, "aria-keyshortcuts": key, "data-choice": name, onclick: () => this.choose(name) }, ...text);
    this.images = ["Left", "Right"].map((side) => h("img", { alt: `${side} restoration` }));
    this.before = h("img", { alt: "The face before" });
    this.pictures = h("div", { class: "two" },
      choice("first", "ArrowLeft", "quiet", this.images[0], h("span", {}, h("kbd", {}, "←"), " Left is better")),
      choice("second", "ArrowRight", "quiet", this.images[1], h("span", {}, "Right is better ", h("kbd", {}, "→"))));
    this.rest = h("div", { class: "row choices" },
      choice("tie", "T", "", h("kbd", {}, "T"), "A tie"), choice("skip", "S", "quiet", h("kbd", {}, "S"), "Skip"));
    const peek = h("details", {}, h("summary", {}, "The face before"), this.before);
    this.none = h("p", { class: "said" });
    this.who = h("input", { type: "text", id: "who", maxlength: "80", autocomplete: "nickname", oninput: () => this.#remember() });
    this.who.value = remembered();
    this.counter = h("p", { role: "status" });
    this.goal = h("progress", { "aria-label": "Judgements towards a difference" });
    this.fitButton = h("button", { type: "button", class: "main", onclick: () => this.#fit() }, "Fit the scorer");
    this.fitText = h("p", {});
    this.fitBar = h("progress", { max: 1, "aria-label": "Progress of the fit" });
    this.stop = h("button", { type: "button", class: "quiet", onclick: () => this.#stop() }, "Cancel the fit");
    this.table = h("table", {});
    this.zip = h("a", { class: "button quiet", href: api.judgementsZip, download: "" }, "Download the judgements");
    root.append(
      h("h1", {}, "Which is better?"),
      h("p", { class: "lead" },
        "Two restorations of one face, in random order, without a word of how they were made. ",
        "Your choices stay on this machine and teach the scorer that prefrestore aligns with."),
      this.pictures, this.rest, this.none, h("div", { class: "sofar" }, this.counter, this.goal), peek,
      h("div", { class: "figures" },
        h("section", { class: "card", "aria-labelledby": "count-title" },
          h("h2", { id: "count-title" }, "Your choices"),
          h("label", { class: "who" }, "Your name, kept with each choice (“me” if empty)", this.who), h("div", { class: "row" }, this.zip)),
        h("section", { class: "card", "aria-labelledby": "fit-title" },
          h("h2", { id: "fit-title" }, "Teach the scorer"),
          h("p", { class: "small" }, "A share of the choices is held out, and says whether the scorer learnt to choose as you do."),
          h("div", { class: "row" }, this.fitButton, this.stop), this.fitText, this.fitBar, this.table)));
    this.peek = peek;
    this.show({ pair: null, message: "Looking for a pair …" });
    this.count({ count: 0, ties: 0, skipped: 0, enough: 0, missing: 0, pairs_left: 0, fit: null });
  }

  async start() {
    await this.#try(async () => this.count(await api.judged()));
    if (!this.pair && !this.busy) await this.#try(async () => this.show(await api.nextPair()));
  }

  /** Nothing can be chosen before both pictures are seen. */
  async show(pair) {
    this.pair = null;
    const there = Boolean(pair.pair);
    if (there) await Promise.all([pair.first, pair.second].map(seen));
    for (const part of [this.pictures, this.rest, this.peek]) part.hidden = !there;
    this.none.hidden = there;
    this.none.textContent = capital(pair.message ?? "");
    if (!there) return;
    this.images[0].src = pair.first;
    this.images[1].src = pair.second;
    this.before.src = pair.before;
    this.pair = pair;
  }

  #wait(busy) {
    this.busy = busy;
    this.pictures.setAttribute("aria-busy", String(busy));
  }

  async choose(choice) {
    if (!this.pair || this.busy) return;
    this.#wait(true);
    const { pair } = this.pair;
    await this.#try(async () => {
      this.count(await api.judge(pair, choice, this.who.value.trim() || "me"));
      await this.show(await api.nextPair());
    });
    this.#wait(false);
  }

  count(said) {
    this.counts = said;
    const { count, ties, skipped, enough, missing } = said;
    const parts = [`${count} judged`];
    if (ties) parts.push(`${ties} of them ${ties === 1 ? "a tie" : "ties"}`);
    if (skipped) parts.push(`${skipped} skipped`);
    const more = missing > 0 ? `${missing} more make a difference.` : "Enough to make a difference.";
    const text = `${parts.join(", ")}. ${enough ? more : ""}`;
    if (this.counter.textContent !== text) this.counter.textContent = text;
    this.zip.hidden = !count;
    this.goal.max = Math.max(1, enough);
    this.goal.value = Math.min(count, enough);
    this.drawFit(said.fit);
  }

  drawFit(fit) {
    const busy = fit?.status === "queued" || fit?.status === "running";
    this.fitButton.disabled = busy || (this.counts?.count ?? 0) < 2;
    this.stop.hidden = !busy;
    this.fitBar.hidden = !busy;
    this.table.hidden = fit?.status !== "done";
    if (busy) {
      if (fit.of) this.fitBar.value = fit.done / fit.of;
      this.fitText.textContent = fit.status === "queued" ? "waiting for the model" : `step ${fit.done} of ${fit.of}`;
    } else if (fit?.status === "failed") this.fitText.textContent = fit.message;
    else if (fit?.status === "done") this.#figures(fit);
    else this.fitText.textContent = (this.counts?.count ?? 0) < 2 ? "There is nothing to learn from yet." : "";
  }

  #figures(fit) {
    const share = (value) => (typeof value === "number" ? percent(value) : "ties only, unknown");
    const interval = Array.isArray(fit.interval_after) ? ` (95 %: ${fit.interval_after.map(percent).join(" to ")})` : "";
    this.fitText.textContent = `Learnt from ${fit.train} choices, tried on ${fit.held_out} that were held out ${fit.rule}. `
      + `The scorer is ${fit.scorer} in the service's folder.`;
    this.table.replaceChildren(
      h("caption", { class: "unseen" }, "How often the scorer agrees with choices that were held out"),
      h("tbody", {},
        h("tr", {}, h("th", { scope: "row" }, "Agrees before"), h("td", {}, share(fit.before))),
        h("tr", {}, h("th", { scope: "row" }, "Agrees after"), h("td", {}, share(fit.after) + interval))));
  }

  async #fit() {
    if (this.counts.missing > 0) {
      const text = `${this.counts.missing} more judgements are advised: with fewer the figures are mostly chance.`;
      if (!(await ask({ title: "Fit now?", text, yes: "Fit" }))) return;
    }
    await this.#try(async () => this.drawFit(await api.fit()));
  }

  #stop() {
    return this.#try(() => api.stopFit());
  }

  #remember() {
    try {
      localStorage.setItem("who", this.who.value);
    } catch {
      // Without storage the name holds for this visit.
    }
  }

  async #try(run) {
    try {
      await run();
    } catch (error) {
      tell(error.message, { bad: true });
    }
  }
}

async function seen(url) {
  const image = new Image();
  image.src = url;
  await image.decode().catch(() => {
    throw new Error("A picture of the pair could not be loaded: reload the page.");
  });
}

function remembered() {
  try {
    return localStorage.getItem("who") ?? "";
  } catch {
    return "";
  }
}
