// One message: what became of it, step by step, what caused it and what it caused.

import { Resource, get } from "./api.js";
import { change, picked } from "./changes.js";
import { copyButton, h } from "./dom.js";
import { UNKNOWN, absolute, duration, shortName, text, when } from "./format.js";
import { facts, failure, messageLink, section, shown, table } from "./parts.js";

export function open(context, id) {
  if (!id) return { title: "Message", view: () => ask(context) };
  const found = new Resource(() => get(`api/v1/messages/${encodeURIComponent(id)}`), context.update);
  found.reload();
  const further = new Further(context.update);
  return {
    title: id,
    view: () => [h("h1", { class: "id" }, h("bdi", {}, id)),
      shown(found, (report) => view(report, found, further, context))],
  };
}

function ask(context) {
  return [h("h1", {}, "Message"),
    h("form", { class: "filters", onsubmit: (event) => {
      event.preventDefault();
      const id = event.currentTarget.elements.id.value.trim();
      if (id) context.go(`messages/${encodeURIComponent(id)}`);
    } }, h("label", {}, "Message id", h("input", { name: "id", class: "id", required: true })),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Look for it")))];
}

function view(report, found, further, context) {
  const command = `protoflow why ${report.id}`;
  const dead = report.dead_letters;
  return [
    h("div", { class: "actions" },
      dead.length ? h("button", { type: "button", class: "primary", disabled: !context.can("operate"),
        onclick: () => change("replay", { picked: picked(dead) }, context,
          () => found.reload()) }, "Replay") : null,
      copyButton(command, `Copy ${"`"}protoflow why${"`"}`),
      h("button", { type: "button", class: "small", onclick: () => found.reload() }, "Look again")),
    report.known ? known(report, further, context) : notFound(report),
    section("Searched", h("ul", {}, report.searched.map((place) => h("li", {}, place)),
      report.not_searched.map((place) => h("li", { class: "note" }, "Not searched: ", place)))),
  ];
}

function notFound(report) {
  return h("div", { class: "failure", role: "alert" },
    h("p", {}, "Nothing is known of this message. The places that were searched are below."),
    report.not_searched.length
      ? h("p", {}, "It may have been where nothing could be searched; those places are named, too.") : null);
}

function known(report, further, context) {
  const first = report.timeline.find((row) => row.event === "published") ?? report.timeline[0];
  const letter = report.dead_letters[0];
  const groups = report.groups;
  return [
    section("Message", facts([
      ["Type", letter?.type ?? (first?.event === "published" ? first.detail || UNKNOWN : UNKNOWN)],
      ["Topic", letter?.original_topic ?? groups[0]?.topic ?? first?.where],
      ["Key", context.session.payloads ? (report.key === "***" ? "\u2022\u2022\u2022" : report.key ?? UNKNOWN)
        : h("span", { class: "note" }, "not shown; set http_payloads")],
      ["Age", first?.time ? duration((Date.now() - Date.parse(first.time)) / 1000) : UNKNOWN],
    ]), table("State by group", [{ name: "Group" }, { name: "Topic" }, { name: "State", class: "wide" }],
      groups.map((one) => ({ key: `${one.topic}/${one.group}`, cells: [
        h("bdi", {}, one.group), h("bdi", {}, one.topic), text(one.state, 200)] })), "State: not known.")),
    section("Timeline", timeline(report)),
    section("Causes", causes(report, further)),
  ];
}

const MARKS = { published: "plain", handled: "good", skipped: "good", failed: "bad", dropped: "bad",
  "dead-lettered": "bad", replayed: "warn", purged: "warn" };

function timeline(report) {
  let before = null;
  const steps = report.timeline.map((row) => {
    const waited = before && row.time ? (Date.parse(row.time) - before) / 1000 : null;
    before = row.time ? Date.parse(row.time) : before;
    return h("li", { class: MARKS[row.event] ?? "plain" },
      h("div", { class: "step" }, h("strong", {}, row.event),
        row.attempt ? h("span", {}, ` attempt ${row.attempt}`) : null,
        waited !== null && waited >= 0.001
          ? h("span", { class: "note" }, ` ${duration(waited)} later`) : null),
      h("div", {}, row.time ? h("span", { class: "at" }, absolute(row.time)) : "time not known", " ",
        h("bdi", {}, row.where), row.group ? `, group ${row.group}` : ""),
      row.detail ? h("div", { class: "detail" }, text(row.detail, 500)) : null,
      h("div", { class: "note" }, `by ${row.source}`));
  });
  return [h("ol", { class: "timeline" }, steps), gaps(report)];
}

/** What may have happened, and stands nowhere. */
function gaps(report) {
  const told = report.not_searched.filter((one) => one.startsWith("journal:"));
  if (told.length) return h("p", { class: "note" }, "Attempts, retry waits and replays are not recorded: the journal is off.");
  if (report.not_searched.some((one) => one.startsWith("successful runs"))) {
    return h("p", { class: "note" }, "Publishes, receipts and successes are not recorded: journal_successes is off.");
  }
  return null;
}

function causes(report, further) {
  return h("ul", { class: "tree" },
    h("li", {}, "Caused by: ", report.caused_by ? messageLink(report.caused_by) : "not known",
      h("ul", {}, h("li", {}, h("strong", {}, "This message"),
        report.caused.length ? effects(report, further, [report.id])
          : h("ul", {}, h("li", {}, "Caused: not known"))))));
}

/** What a message caused. What these messages caused is looked up when one of them is opened. */
function effects(report, further, above) {
  return h("ul", {}, report.caused.map((one) => h("li", { "data-key": one.id }, "Caused: ",
    messageLink(one.id), " ", h("bdi", {}, shortName(one.type)), ` in ${one.topic} `, when(one.time),
    above.includes(one.id) ? null
      : h("details", { "data-key": "further", ontoggle: (event) => {
        if (event.currentTarget.open) further.look(one.id);
      } }, h("summary", {}, "What it caused"), further.has(one.id)
        ? shown(further.get(one.id), (next) => next.caused.length
          ? effects(next, further, [...above, one.id])
          : h("p", { class: "note" }, "No further messages are known."))
        : null))));
}

/** The reports of messages further down the tree, by id. */
class Further extends Map {
  constructor(update) {
    super();
    this.update = update;
  }

  look(id) {
    if (this.has(id)) return;
    const found = new Resource(() => get(`api/v1/messages/${encodeURIComponent(id)}`), this.update);
    this.set(id, found);
    found.reload();
  }
}
