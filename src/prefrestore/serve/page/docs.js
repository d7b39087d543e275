// Shows the service's OpenAPI document. Texts of the document are only ever put in as text.

const METHODS = ["get", "post", "put", "patch", "delete"];

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function table(heads, rows) {
  const head = element("thead", element("tr", ...heads.map((text) => element("th", text))));
  const lines = rows.map((row) => element("tr", ...row.map((cell) => element("td", cell))));
  return element("table", head, element("tbody", ...lines));
}

/** A schema in a few words; a named one is a link to it. */
function words(schema) {
  if (!schema) return "";
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    const link = element("a", name);
    link.href = `#${name}`;
    return link;
  }
  const one = schema.anyOf ?? schema.oneOf;
  if (one) return join(one.map(words), " or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return join(["list of ", words(schema.items)], "");
  const limits = [];
  for (const [key, sign] of [["minimum", "≥ "], ["maximum", "≤ "], ["exclusiveMinimum", "> "], ["exclusiveMaximum", "< "]]) {
    if (schema[key] !== undefined) limits.push(sign + schema[key]);
  }
  if (schema.maxLength !== undefined) limits.push(`at most ${schema.maxLength} characters`);
  const kind = schema.format === "binary" ? "file" : (schema.type ?? "anything");
  return limits.length ? `${kind} (${limits.join(", ")})` : kind;
}

function join(parts, between) {
  const made = element("span");
  parts.forEach((part, index) => made.append(...(index && between ? [between, part] : [part])));
  return made;
}

function example(value) {
  return value === undefined ? null : element("pre", JSON.stringify(value, null, 2));
}

function properties(schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([name, one]) => {
    const fallback = one.default === undefined || one.default === null ? "" : `${JSON.stringify(one.default)} if left out`;
    const told = [one.description, fallback].filter(Boolean).join("; ");
    return [element("code", name + (required.has(name) ? " *" : "")), words(one), told];
  });
  return rows.length ? table(["name", "what", "about"], rows) : null;
}

function operation(path, method, one) {
  const article = element("article");
  article.id = `${method}${path}`;
  article.append(element("h3", element("code", `${method.toUpperCase()} ${path}`), ` ${one.summary ?? ""}`));
  if (one.description) article.append(element("p", one.description));
  const parameters = (one.parameters ?? []).map((given) => [
    element("code", given.name + (given.required ? " *" : "")),
    given.in,
    words(given.schema),
    given.description ?? "",
  ]);
  if (parameters.length) article.append(table(["parameter", "in", "what", "about"], parameters));
  for (const [type, { schema, example: shown }] of Object.entries(one.requestBody?.content ?? {})) {
    article.append(element("p", "Body: ", element("code", type), " ", schema.properties ? "" : words(schema)));
    article.append(properties(schema) ?? "");
    if (shown !== undefined) article.append(example(shown));
  }
  const answers = Object.entries(one.responses ?? {}).map(([status, answer]) => {
    const kinds = Object.entries(answer.content ?? {}).map(([type, { schema }]) =>
      type === "application/problem+json" ? "a problem" : join([element("code", type), " ", words(schema)], ""),
    );
    return [status, answer.description ?? "", join(kinds, ", ")];
  });
  article.append(table(["answer", "about", "body"], answers));
  return article;
}

function show(api) {
  document.querySelector("#about").textContent = `${api.info.title} ${api.info.version}. ${api.info.description ?? ""}`;
  const sections = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => methods[name])) {
      const tag = methods[method].tags?.[0] ?? "other";
      if (!sections.has(tag)) sections.set(tag, []);
      sections.get(tag).push([path, method, methods[method]]);
    }
  }
  const contents = element("ul");
  for (const [tag, operations] of sections) {
    const section = element("section", element("h2", tag[0].toUpperCase() + tag.slice(1)));
    for (const given of operations) {
      section.append(operation(...given));
      const link = element("a", `${given[1].toUpperCase()} ${given[0].replace("/api/v1", "")}`);
      link.href = `#${given[1]}${given[0]}`;
      contents.append(element("li", link));
    }
    document.querySelector("#operations").append(section);
  }
  document.querySelector("#contents").append(contents);
  for (const [name, schema] of Object.entries(api.components?.schemas ?? {})) {
    const article = element("article", element("h3", name));
    article.id = name;
    if (schema.description) article.append(element("p", schema.description));
    article.append(properties(schema) ?? "");
    for (const shown of schema.examples ?? []) article.append(example(shown));
    document.querySelector("#schemas").append(article);
  }
}

try {
  const answer = await fetch("/api/v1/openapi.json");
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.detail);
  show(said);
  // What the address names was not there when the page was read.
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named) named.scrollIntoView();
} catch (error) {
  document.querySelector("#about").textContent = `The description cannot be shown: ${error.message}`;
}
