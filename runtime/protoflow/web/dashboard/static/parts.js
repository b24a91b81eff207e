// Parts that several pages have.

import { address } from "./api.js";
import { h } from "./dom.js";
import { UNKNOWN, shortName } from "./format.js";

export const link = (path, label, query = {}, more = {}) =>
  h("a", { href: address(path, query), ...more }, label);

export const handlerLink = (name) =>
  name ? link(`handlers/${encodeURIComponent(name)}`, shortName(name), {}, { title: name }) : UNKNOWN;

export const messageLink = (id) =>
  id ? link(`messages/${encodeURIComponent(id)}`, id, {}, { class: "id" }) : UNKNOWN;

/** A table in a frame that scrolls by itself where it is too wide, reachable by keyboard. */
export function table(label, columns, rows, empty = "Nothing to show.") {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", {},
      h("caption", { class: "hidden" }, label),
      h("thead", {}, h("tr", {}, columns.map((column) =>
        h("th", { scope: "col", class: column.number ? "number" : null }, column.name)))),
      h("tbody", {}, rows.map((row) => h("tr", { "data-key": row.key ?? null, class: row.class },
        row.cells.map((cell, index) =>
          h("td", { class: columns[index].number ? "number" : columns[index].class }, cell)))))));
}

export const skeleton = () =>
  h("div", { class: "skeleton", "aria-label": "Loading", role: "img" },
    h("span", {}), h("span", {}), h("span", {}));

export const failure = (error, again) =>
  h("div", { class: "failure", role: "alert" }, h("p", {}, error.message),
    again ? h("button", { type: "button", onclick: again }, "Try again") : null);

/** What a resource shows: its value, why there is none, or that it is on its way. */
export function shown(resource, view) {
  if (resource.value !== undefined) {
    return [resource.error ? failure(resource.error, () => resource.reload()) : null,
      view(resource.value)];
  }
  return resource.error ? failure(resource.error, () => resource.reload()) : skeleton();
}

const GOOD = new Set(["running", "ok"]);

export const state = (value) =>
  h("span", { class: `state ${GOOD.has(value) ? "good" : value === "elsewhere" ? "plain" : "warn"}` },
    value === "elsewhere" ? "not seen here" : value);

/** Terms and their descriptions. */
export const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs.filter(Boolean).map(([term, value]) =>
    h("div", {}, h("dt", {}, term), h("dd", {}, value ?? UNKNOWN))));

export const section = (title, ...content) =>
  h("section", { "data-key": `section:${title}` }, h("h2", {}, title), content);
