// How photos that are added from now on are restored. Limits, choices and sentences are those of the service's own
// description of its options; only the labels are the page's.

import * as api from "./api.js";
import { $, h, tell } from "./dom.js";

const FIRST = { faces: "Faces", strength: "Strength", keep_likeness: "Keep the likeness", fidelity: "Faithfulness", scale: "Size",
  format: "File format", quality: "File quality", seed: "Seed" };
const RULES = { min_face: "Smallest face", max_yaw: "Most turned", min_score: "Least sure", sharp_enough: "Sharp enough" };
const WORDS = { all: "all that are found", 1: "as it is", 2: "2 times", 4: "4 times" };
const USUAL = { faces: "by the rules", format: "the same" };

const controls = new Map(); // name -> { input, usual }

/** What differs from the usual, as the service takes it. */
export function chosenOptions() {
  const chosen = {};
  for (const [name, { input, usual }] of controls) {
    const given = input.type === "checkbox" ? input.checked : input.value.trim();
    if (given === usual) continue;
    chosen[name] = typeof given === "boolean" || Number.isNaN(Number(given)) ? given : Number(given);
  }
  return chosen;
}

export function startOptions() {
  const details = $("options");
  details.addEventListener("toggle", async () => {
    if (!details.open || controls.size) return;
    try {
      const { properties } = await api.describedOptions();
      if (!controls.size) build(details, properties);
    } catch (error) {
      details.open = false;
      tell(error.message, { bad: true });
    }
  });
}

function build(details, properties) {
  const fields = (labels) => Object.entries(labels).map(([name, label]) => field(name, label, properties[name]));
  const reset = h("button", { type: "reset", class: "quiet" }, "All as usual");
  const form = h("form", { class: "options" },
    h("p", { class: "small" }, "For photos that you add from now on."), ...fields(FIRST),
    h("details", {}, h("summary", {}, "Which faces are left alone"), h("div", { class: "options" }, ...fields(RULES))), reset);
  const count = () => {
    const number = Object.keys(chosenOptions()).length;
    details.firstElementChild.textContent = number ? `Options (${number} changed)` : "Options";
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", count);
  form.addEventListener("reset", () => setTimeout(count)); // once the fields are as they were
  details.append(form);
}

function field(name, label, schema) {
  const id = `option-${name}`;
  const about = h("span", { class: "small", id: `${id}-about` }, schema.description);
  const kinds = schema.anyOf ?? [schema];
  const listed = kinds.flatMap((kind) => kind.enum ?? (kind.const === undefined ? [] : [kind.const]));
  const given = { id, "aria-describedby": about.id };
  let input;
  if (schema.type === "boolean") input = h("input", { ...given, type: "checkbox", role: "switch", checked: schema.default });
  else if (listed.length) {
    const usual = schema.default == null ? [h("option", { value: "" }, USUAL[name] ?? "as usual")] : [];
    input = h("select", given, ...usual, ...listed.map((value) => h("option", { value }, WORDS[value] ?? String(value).toUpperCase())));
  } else {
    const { type, minimum, maximum } = kinds.find((kind) => ["number", "integer"].includes(kind.type));
    const step = type === "integer" ? 1 : maximum === 1 ? 0.05 : "any";
    input = h("input", { ...given, type: "number", min: minimum, max: maximum, step, placeholder: "as usual", value: schema.default });
  }
  controls.set(name, { input, usual: input.type === "checkbox" ? input.checked : input.value });
  if (input.type === "checkbox") return h("div", { class: "field" }, h("label", { class: "switch" }, input, label), about);
  return h("div", { class: "field" }, h("div", { class: "row" }, h("label", { for: id }, label), input), about);
}
