// Small helpers over the document. Texts are set as text, never as HTML.

/** An element: h("button", { class: "quiet", onclick: f }, "Undo"). False, null and undefined attributes are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const $ = (id) => document.getElementById(id);

const fading = new Map(); // place -> timer

/** Say it to screen readers, and show it for some seconds, or until something else is told in its place. */
export function tell(sentence, { bad = false, stays = false } = {}) {
  const place = $(bad ? "alert" : "status");
  place.textContent = sentence;
  clearTimeout(fading.get(place));
  if (!stays) fading.set(place, setTimeout(() => tell("", { bad, stays: true }), bad ? 12000 : 5000));
}

/** A sentence of the service as one of the page. */
export const capital = (sentence) => sentence.charAt(0).toUpperCase() + sentence.slice(1);

export const percent = (share) => `${Math.round(share * 100)}\u00a0%`; // never broken before the sign

/** Show another picture without a blank in between; a picture that was overtaken is dropped. */
export async function swap(image, url) {
  if (image.dataset.wanted === url) return;
  image.dataset.wanted = url;
  const next = new Image();
  next.src = url;
  try {
    await next.decode();
  } catch {
    if (image.dataset.wanted === url) delete image.dataset.wanted;
    return;
  }
  if (image.dataset.wanted === url) image.src = url;
}
