// A service that other machines can reach needs its token; a browser without it asks here.

import * as api from "./api.js";
import { capital, h } from "./dom.js";

let dialog = null;

/** Ask until the service takes it; then the page begins anew. */
export function askForToken() {
  if (dialog) return;
  const token = h("input", { type: "password", id: "token", required: true, autocomplete: "current-password" });
  const said = h("p", { role: "alert" });
  const form = h("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      try {
        await api.enter(token.value.trim());
        location.reload();
      } catch (error) {
        said.textContent = capital(error.message);
      }
    },
  },
  h("h2", { id: "token-title" }, "This service needs its token"),
  h("p", { class: "small" }, "It was printed when the service started, as part of the address to open."),
  h("label", { class: "field" }, "Token", token), said,
  h("div", { class: "row end" }, h("button", { type: "submit", class: "main" }, "Enter")));
  dialog = h("dialog", { "aria-labelledby": "token-title", oncancel: (event) => event.preventDefault() }, form);
  document.body.append(dialog);
  dialog.showModal();
}
