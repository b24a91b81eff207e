// Dead letters: filter, groups, rows, one of them in a drawer, and what can be done with them.

import { Resource, address, get } from "./api.js";
import { change, picked, placeOf } from "./changes.js";
import { h } from "./dom.js";
import { UNKNOWN, bytes, count, moment, text, when, written } from "./format.js";
import { live } from "./live.js";
import { facts, handlerLink, link, messageLink, section, shown, table } from "./parts.js";

const CONDITIONS = ["handler", "error", "error_class", "type", "key", "topic", "group", "since", "until"];
const TIMES = ["since", "until"];
const PAGE = 50;

export function open(context) {
  const page = {
    rows: [], cursor: null, chosen: new Map(), letter: null,
    filter: () => filterOf(context.query()),
  };
  let asked = null;
  const summary = new Resource(() => get("api/v1/dead-letters/summary", page.filter()), context.update);
  const list = new Resource(async () => {
    const found = await get("api/v1/dead-letters", { ...page.filter(), limit: PAGE });
    page.rows = found.dead_letters;
    page.cursor = found.next_cursor;
    return found;
  }, context.update);
  page.more = async () => {
    const found = await get("api/v1/dead-letters",
      { ...page.filter(), limit: PAGE, cursor: page.cursor });
    page.rows = [...page.rows, ...found.dead_letters];
    page.cursor = found.next_cursor;
    context.update();
  };
  page.reload = () => {
    summary.reload();
    list.reload();
    openLetter();
  };
  const openLetter = () => {
    const id = context.query().open;
    const place = placeOf({ topic: context.query().in, id });
    if (!id) page.letter = null;
    else if (page.letter?.place !== place) page.letter = { place, ...letterOf(context, id) };
    else page.letter.resource.reload();
  };
  const moved = () => {
    const wanted = JSON.stringify(page.filter());
    if (wanted !== asked) {
      asked = wanted;
      page.chosen.clear();
      summary.value = list.value = undefined;
      summary.reload();
      list.reload();
    }
    openLetter();
    context.update();
  };
  moved();
  let waiting = null;
  return {
    title: "Dead letters",
    moved,
    // New ones show up by themselves, unless somebody is about to choose.
    refreshed: () => {
      const now = JSON.stringify(live.snapshot?.topics.map((one) =>
        [one.waiting, one.received, one.replayed, one.purged]));
      if (waiting !== null && now !== waiting && !page.chosen.size && page.rows.length <= PAGE) {
        summary.reload();
        list.reload();
      }
      waiting = now;
    },
    view: () => view(page, summary, list, context),
  };
}

function filterOf(query) {
  const found = {};
  for (const name of CONDITIONS) {
    if (!query[name]) continue;
    // Of an address that somebody wrote by hand, the service says what is wrong.
    found[name] = TIMES.includes(name) ? moment(query[name]) ?? query[name] : query[name];
  }
  return found;
}

function letterOf(context, id) {
  const query = context.query();
  const payload = context.session.payloads ? "true" : undefined;
  const resource = new Resource(() => get(`api/v1/dead-letters/${encodeURIComponent(id)}`,
    { topic: query.in, payload }), context.update);
  resource.reload();
  return { id, resource };
}

function view(page, summary, list, context) {
  const filter = page.filter();
  const filtered = Object.keys(filter).length > 0;
  const all = live.snapshot?.topics.reduce((sum, one) => sum + one.waiting, 0);
  return [
    h("h1", {}, "Dead letters"),
    filters(context),
    shown(summary, (found) => [
      h("p", { class: "total", "aria-live": "polite" }, filtered
        ? `${count(found.matched)}${found.complete ? "" : "+"} match, ${count(Math.max(all ?? 0, found.matched))} in all`
        : `${count(found.matched)}${found.complete ? "" : "+"} in all`),
      found.matched ? groups(found, page, context) : none(filtered),
    ]),
    summary.value?.matched || page.rows.length
      ? section("Messages", bulk(page, summary, context), shown(list, () => rows(page, context)))
      : null,
    page.letter ? drawer(page, context) : null,
  ];
}

const none = (filtered) => h("p", { class: "empty" }, filtered
  ? "No dead letter matches the filter."
  : "No dead letters. Failed messages appear here after their last attempt.");

function filters(context) {
  const query = context.query();
  const handlers = live.snapshot?.handlers.map((one) => one.name) ?? [];
  const submit = (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.currentTarget));
    // An address means the same moment wherever it is opened.
    for (const name of TIMES) given[name] = moment(given[name]) ?? "";
    context.go("dead-letters", given);
  };
  const field = (name, label, more = {}) => h("label", { "data-key": name }, label,
    h("input", { name, value: (TIMES.includes(name) ? written(query[name]) : query[name]) ?? "",
      autocomplete: "off", ...more }));
  return h("form", { class: "filters", role: "search", "aria-label": "Filter", onsubmit: submit },
    field("handler", "Handler", { list: "handlers" }),
    h("datalist", { id: "handlers" }, handlers.map((name) => h("option", { value: name }))),
    field("error", "Error", { placeholder: "ValueError" }),
    field("error_class", "Error class", { placeholder: "exhausted", list: "classes" }),
    h("datalist", { id: "classes" },
      ["exhausted", "unprocessable", "decode", "validation"].map((value) => h("option", { value }))),
    field("type", "Type"), field("key", "Key"),
    field("since", "From", { type: "datetime-local", step: "1" }),
    field("until", "Until", { type: "datetime-local", step: "1" }),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Filter"),
      link("dead-letters", "Clear", {}, { class: "button" })));
}

function groups(found, page, context) {
  const narrowed = (one) => ({ ...page.filter(), handler: one.handler, error: one.error_type });
  return section("By handler and error", table("Groups by handler and error",
    [{ name: "Handler" }, { name: "Error" }, { name: "Count", number: true }, { name: "First" },
      { name: "Last" }, { name: "Actions" }],
    found.groups.map((one) => ({ key: `${one.handler}:${one.error_type}`, cells: [
      handlerLink(one.handler),
      link("dead-letters", one.error_type || UNKNOWN, narrowed(one)),
      count(one.count), when(one.first_at), when(one.last_at),
      h("div", { class: "buttons" },
        buttons({ filter: narrowed(one) }, `${one.error_type} in ${one.handler}`, page, context)),
    ] }))));
}

/** Replay, purge and export of a selection: {picked}, {filter} or {all}. */
function buttons(what, name, page, context) {
  const act = (verb) => change(verb, what, context, () => {
    page.chosen.clear();
    page.reload();
  });
  const may = context.can("operate");
  const label = (verb) => (name ? `${verb} ${name}` : null);
  return [
    h("button", { type: "button", disabled: !may, "aria-label": label("Replay"),
      onclick: () => act("replay") }, "Replay"),
    h("button", { type: "button", class: "danger", disabled: !may, "aria-label": label("Purge"),
      onclick: () => act("purge") }, "Purge"),
    what.picked
      ? h("button", { type: "button", onclick: () => save([...page.chosen.values()]) }, "Export")
      : h("a", { class: "button", download: "dead-letters.ndjson", "aria-label": label("Export"),
        href: address("api/v1/dead-letters/export", what.filter) }, "Export"),
  ];
}

function save(rows) {
  const lines = rows.map((row) => `${JSON.stringify(row)}\n`);
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  const anchor = h("a", { href: url, download: "dead-letters.ndjson" });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function bulk(page, summary, context) {
  const filter = page.filter();
  const filtered = Object.keys(filter).length > 0;
  if (page.chosen.size) {
    return h("div", { class: "bulk", role: "group", "aria-label": "Selection" },
      h("strong", {}, `${count(page.chosen.size)} selected`),
      buttons({ picked: picked(page.chosen.values()) }, "", page, context),
      h("button", { type: "button", onclick: () => {
        page.chosen.clear();
        context.update();
      } }, "Clear selection"));
  }
  const matched = summary.value?.matched;
  return h("div", { class: "bulk", role: "group", "aria-label": "Everything that matches" },
    h("strong", {}, filtered ? `Everything that matches (${count(matched)})` : `Everything (${count(matched)})`),
    buttons(filtered ? { filter } : { all: true }, "", page, context));
}

function rows(page, context) {
  const every = page.rows.length > 0 && page.rows.every((row) => page.chosen.has(placeOf(row)));
  const choose = (row, chosen) => {
    if (chosen) page.chosen.set(placeOf(row), row);
    else page.chosen.delete(placeOf(row));
    context.update();
  };
  const box = h("input", { type: "checkbox", checked: every, "aria-label": "Select all that are shown",
    onchange: (event) => {
      for (const row of page.rows) choose(row, event.currentTarget.checked);
    } });
  return [
    table("Dead letters", [{ name: box }, { name: "Time" }, { name: "Id" }, { name: "Type" },
      { name: "Attempts", number: true }, { name: "Error", class: "wide" }, { name: "Actions" }],
    page.rows.map((row) => ({ key: `${row.topic}:${row.position}`, cells: [
      h("input", { type: "checkbox", checked: page.chosen.has(placeOf(row)), "aria-label": `Select ${row.id}`,
        onchange: (event) => choose(row, event.currentTarget.checked) }),
      when(row.dead_lettered_at), messageLink(row.id),
      h("bdi", { title: row.type }, row.type?.split(".").at(-1) ?? UNKNOWN),
      count(row.attempts), errorOf(row),
      h("div", { class: "buttons" },
        h("button", { type: "button", "aria-label": `Open ${row.id}`,
          onclick: () => context.go("dead-letters",
            { ...context.query(), open: row.id, in: row.topic }) }, "Open"),
        h("button", { type: "button", "aria-label": `Replay ${row.id}`, disabled: !context.can("operate"),
          onclick: () => act("replay", row, page, context) }, "Replay")),
    ] }))),
    page.cursor ? h("button", { type: "button", onclick: page.more }, "Show more") : null,
  ];
}

const errorOf = (row) => [
  h("strong", {}, h("bdi", {}, row.error_type ?? "")), row.error_message ? ": " : "",
  row.error_message ? text(row.error_message, 200) : null,
];

function drawer(page, context) {
  const { open: _open, in: _in, ...rest } = context.query();
  const close = () => {
    context.go("dead-letters", rest);
    document.querySelector(`[aria-label="Open ${CSS.escape(page.letter?.id ?? "")}"]`)?.focus();
  };
  return h("aside", { class: "drawer", "aria-label": "Dead letter", "data-key": "drawer",
    onkeydown: (event) => event.key === "Escape" && close() },
  h("div", { class: "drawer-head" }, h("h2", {}, "Dead letter"),
    h("button", { type: "button", onclick: close }, "Close")),
  shown(page.letter.resource, (row) => [
    h("p", {}, messageLink(row.id)),
    h("p", { class: "cause" }, errorOf({ ...row, error_message: null }),
      row.error_message ? h("span", {}, " ", text(row.error_message)) : null),
    h("div", { class: "buttons" }, one(row, page, context)),
    facts([
      ["Cause", row.error_class], ["Attempts", count(row.attempts)],
      ["Dead-lettered", when(row.dead_lettered_at)], ["Handler", handlerLink(row.handler)],
      ["Group", row.group],
      ["Origin", `${row.original_topic ?? UNKNOWN}, ${row.original_partition ?? UNKNOWN}/${row.original_offset ?? UNKNOWN}`],
      ["Lies in", row.topic], ["Type", row.type], ["Source", row.source], ["Size", bytes(row.size)],
      ["Correlation id", row.correlation_id], ["Trace", traceOf(row)],
      context.session.payloads ? ["Key", hidden(row.key)] : null,
    ].filter(Boolean).map(([name, value]) => [name, typeof value === "string" ? text(value, 300) : value])),
    h("h3", {}, "Payload"), payload(row, context),
    h("h3", {}, "Headers"), headers(row, context),
  ]));
}

const act = (verb, row, page, context) => change(verb, { picked: picked([row]) }, context, () => {
  const { open: _open, in: _in, ...rest } = context.query();
  context.go("dead-letters", rest);
  page.reload();
});

function one(row, page, context) {
  const may = context.can("operate");
  return [
    h("button", { type: "button", class: "primary", disabled: !may,
      onclick: () => act("replay", row, page, context) }, "Replay"),
    h("button", { type: "button", class: "danger", disabled: !may,
      onclick: () => act("purge", row, page, context) }, "Purge"),
    h("button", { type: "button", onclick: () => save([row]) }, "Export"),
  ];
}

const hidden = (value) => (value === "***" ? "\u2022\u2022\u2022" : value);

/** The trace id of a W3C traceparent. */
const traceOf = (row) => row.traceparent?.split("-")[1] ?? row.traceparent;

function headers(row, context) {
  const found = Object.entries(row.metadata ?? {});
  return [
    table("Headers", [{ name: "Name" }, { name: "Value", class: "wide" }],
      found.map(([name, value]) => ({ key: name, cells: [h("code", {}, name), text(hidden(value), 300)] })),
      "No headers."),
    context.session.payloads ? null
      : h("p", { class: "note" }, "Headers of others and the key are not shown; set http_payloads to show them."),
  ];
}

function payload(row, context) {
  if (!context.session.payloads) {
    return h("p", { class: "note" }, "Payloads are not shown; set http_payloads to show them, ",
      "sensitive fields hidden.");
  }
  const shape = JSON.stringify(row.payload, (_name, value) => hidden(value), 2) ?? "";
  return h("pre", { tabindex: "0", role: "region", "aria-label": "Payload" }, text(shape));
}
