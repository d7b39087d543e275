// The service's HTTP interface: every call of the page is here. Failures are Errors with the service's one sentence.

const ROOT = "/api/v1";

export class Problem extends Error {
  constructor(sentence, status, wait) {
    super(sentence);
    this.status = status;
    this.wait = wait; // seconds after which to try again, or null
  }
}

async function call(method, path, body, signal) {
  const given = { method, signal, headers: {} };
  if (body instanceof FormData) given.body = body;
  else if (body !== undefined) {
    given.body = JSON.stringify(body);
    given.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(ROOT + path, given);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer: is `prefrestore serve` still running?", 0, 3);
  }
  if (answer.status === 204) return null;
  const text = await answer.text();
  let said = null;
  try {
    said = JSON.parse(text);
  } catch {
    // No JSON: told below by the status alone.
  }
  if (answer.ok && said !== null) return said;
  const wait = answer.headers.get("Retry-After");
  throw new Problem(said?.detail ?? `The service answered ${answer.status}.`, answer.status, wait === null ? null : Number(wait));
}

const of = (id) => `/restorations/${id}`;
const address = (path) => ROOT + path;

export const list = () => call("GET", "/restorations");
export const info = () => call("GET", "/info");
export const enter = (token) => call("POST", "/session", { token });
export const change = (id, faces) => call("PATCH", of(id), { faces });
export const remove = (id) => call("DELETE", of(id));
export const retry = (id) => call("POST", `${of(id)}/retry`);
export const guess = (id, face, wanted) => call("POST", `${of(id)}/faces/${face}/guesses`, wanted);
export const doubt = (id, face) => call("POST", `${of(id)}/faces/${face}/uncertainty`);
export const stopWork = (id) => call("DELETE", `${of(id)}/work`);

/** What may be chosen about a photo, as a JSON schema. */
export const describedOptions = async () => (await call("GET", "/openapi.json")).components.schemas.Options;

export function upload(file, options, signal) {
  const form = new FormData();
  form.append("options", JSON.stringify(options));
  form.append("photo", file, file.name || "pasted.png");
  return call("POST", "/restorations", form, signal);
}

export const judged = () => call("GET", "/judgements");
export const nextPair = () => call("GET", "/judgements/next");
export const judge = (pair, choice, who) => call("POST", "/judgements", { pair, choice, who });
export const fit = () => call("POST", "/judgements/fit", {});
export const stopFit = () => call("DELETE", "/judgements/fit");
export const judgementsZip = address("/judgements.zip");

// Addresses of pictures. `version` in them keeps a browser from showing an old one.
export const photoFile = (photo) => address(`${of(photo.id)}/photo?v=${photo.version}`);
export const recordFile = (photo) => address(`${of(photo.id)}/record?v=${photo.version}`);
export const zipFile = (photos) => address(`/restorations.zip?${new URLSearchParams(photos.map((photo) => ["id", photo.id]))}`);
export const beforeView = (photo, side) => address(`${of(photo.id)}/view/before${side ? `?side=${side}` : ""}`);
export const afterView = (photo, side) => address(`${of(photo.id)}/view/after?v=${photo.version}${side ? `&side=${side}` : ""}`);
export const region = (photo, face, side) =>
  address(`${of(photo.id)}/faces/${face}/region?v=${photo.version}&side=${side}&format=jpeg`);
export const faceBefore = (photo, face) => address(`${of(photo.id)}/faces/${face}/before`);
export const faceAfter = (photo, face, number, strength = 1) =>
  address(`${of(photo.id)}/faces/${face}/after?guess=${number}&strength=${strength}`);
export const doubtMap = (photo, face) => address(`${of(photo.id)}/faces/${face}/uncertainty`);

/** Listen to the service: handlers by the event's name, and `open`. It connects again by itself. */
export function listen(handlers) {
  const source = new EventSource(address("/events"));
  for (const [name, handler] of Object.entries(handlers)) {
    if (name === "open" || name === "lost") continue;
    source.addEventListener(name, (event) => handler(JSON.parse(event.data)));
  }
  source.addEventListener("open", () => handlers.open());
  source.addEventListener("error", () => {
    handlers.lost();
    // Closed for good is an answer that was no stream, such as 401; the list then says which.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(handlers), 3000);
  });
}
