// Replay and purge: what would be changed, the choice, progress, and what was left.

import { Failure, get, post } from "./api.js";
import { announce, h, show } from "./dom.js";
import { UNKNOWN, count, number, plural, text, when } from "./format.js";
import { live } from "./live.js";
import { facts, handlerLink, messageLink, table } from "./parts.js";

// Dead letters of one request, and of one page when all are gathered.
const PORTION = 50;
const GATHERED = 1000;
const NAMED = 200;

/**
 * Opens the dialog of a change.
 *
 * verb: replay or purge. what: {picked}, ids by topic, {filter} or {all}. done: called when it is
 * closed after something was changed.
 */
export function change(verb, what, context, done) {
  const run = {
    verb, what, context, step: "preview", preview: null, error: null, toOrigin: false, rate: "",
    typed: "", done: 0, failed: 0, total: 0, left: [], stopped: false, before: null,
    replayed: new Set(), started: null, again: null,
  };
  const dialog = h("dialog", { "aria-labelledby": "change-title", class: "change" });
  const back = document.activeElement;
  document.getElementById("dialogs").append(dialog);
  run.draw = () => show(dialog, content(run));
  run.close = () => dialog.close();
  dialog.addEventListener("cancel", (event) => {
    if (run.step === "running") event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    run.stopped = true;
    clearInterval(timer);
    dialog.remove();
    back?.isConnected && back.focus();
    if (run.step !== "preview") done();
  });
  // What is handled meanwhile comes with the stream.
  const timer = setInterval(() => {
    if (run.step !== "preview") run.draw();
    if (run.step === "ended" && run.verb === "replay") lookAgain(run);
  }, 1000);
  run.draw();
  dialog.showModal();
  look(run);
}

export const placeOf = (row) => `${row.topic}:${row.id}`;

/** Dead letters by topic: one message may be a dead letter of several groups. */
export function picked(rows) {
  const found = new Map();
  for (const { topic, id } of rows) found.set(topic, [...(found.get(topic) ?? []), id]);
  return found;
}

function bodiesOf({ picked: chosen, filter }) {
  if (chosen) return [...chosen].map(([topic, ids]) => ({ ids, filter: { topic } }));
  return [filter ? { filter } : { all: true }];
}

async function look(run) {
  const preview = { matched: 0, samples: [] };
  try {
    for (const body of bodiesOf(run.what)) {
      const found = await post(`api/v1/dead-letters/${run.verb}`, { ...body, dry_run: true });
      preview.matched += found.matched;
      preview.samples = [...preview.samples, ...found.samples].slice(0, 5);
    }
    run.preview = preview;
  } catch (error) {
    run.error = error;
  }
  run.draw();
}

const NAMES = { replay: "Replay", purge: "Purge" };

function content(run) {
  const title = h("h2", { id: "change-title" }, `${NAMES[run.verb]} dead letters`);
  if (run.error) return [title, h("p", { class: "failure", role: "alert" }, run.error.message), closing(run)];
  if (!run.preview) return [title, h("p", {}, "Counting\u2026"), closing(run)];
  if (run.step === "preview") return [title, preview(run)];
  return [title, progress(run)];
}

const closing = (run) => h("div", { class: "buttons", "data-key": "close" },
  h("button", { type: "button", onclick: run.close }, "Close"));

function preview(run) {
  const { matched, samples } = run.preview;
  if (!matched) return [h("p", {}, "No dead letter matches any more."), closing(run)];
  return h("form", { method: "dialog", "data-key": "preview", onsubmit: (event) => {
    event.preventDefault();
    begin(run);
  } },
  h("p", {}, h("strong", {}, plural(matched, "dead letter")), run.verb === "replay"
    ? " will be given back and handled again, attempts counted anew."
    : " will be deleted for good. Nothing brings them back."),
  table(`The first ${Math.min(5, matched)} of them`,
    [{ name: "Time" }, { name: "Id" }, { name: "Error", class: "wide" }],
    samples.map((row) => ({ key: `${row.topic}:${row.id}`, cells: [
      when(row.dead_lettered_at), h("span", { class: "id" }, row.id),
      [row.error_type ?? "", row.error_message ? ": " : "", row.error_message ? text(row.error_message, 120) : ""],
    ] }))),
  run.verb === "replay" ? replayOptions(run) : purgeOptions(run, matched),
  h("div", { class: "buttons" },
    h("button", { type: "submit", class: run.verb === "purge" ? "danger" : "primary",
      disabled: run.verb === "purge" && run.typed.trim() !== String(matched) },
    `${NAMES[run.verb]} ${plural(matched, "dead letter")}`),
    h("button", { type: "button", onclick: run.close }, "Cancel")));
}

function replayOptions(run) {
  const choice = (value, label) => h("label", { class: "choice" },
    h("input", { type: "radio", name: "to", checked: run.toOrigin === value, onchange: () => {
      run.toOrigin = value;
      run.draw();
    } }), label);
  return [
    h("fieldset", {}, h("legend", {}, "To"),
      choice(false, "the group that failed"), choice(true, "the original topic, where every group gets them")),
    h("label", {}, "At most ", h("input", { type: "number", name: "rate", min: "0.1", step: "any",
      value: run.rate, placeholder: "no limit", class: "short", oninput: (event) => {
        run.rate = event.currentTarget.value;
      } }), " msg/s"),
    h("p", { class: "note" }, "The oldest go first, in portions of ", count(PORTION), ". If one cannot ",
      "be given back, the later ones of its key in the portion stay, so that their order is kept. ",
      "They come after the messages of their key that were handled meanwhile."),
  ];
}

function purgeOptions(run, matched) {
  return h("label", {}, `Type ${matched} to purge them: `,
    h("input", { name: "confirm", inputmode: "numeric", autocomplete: "off", class: "short",
      value: run.typed, oninput: (event) => {
        run.typed = event.currentTarget.value;
        run.draw();
      } }));
}

async function begin(run) {
  run.step = "running";
  run.total = run.preview.matched;
  run.before = handledOf(run);
  run.started = live.snapshot?.time ?? new Date().toISOString();
  run.draw();
  try {
    await each(run, await gathered(run));
  } catch (error) {
    run.broken = error;
  }
  run.step = "ended";
  run.draw();
  announce(`${run.done} done, ${run.failed} failed`);
}

/** The ids that are to be changed, by topic: what comes later is not. */
async function gathered(run) {
  if (run.what.picked) return run.what.picked;
  const rows = [];
  let cursor = null;
  do {
    const page = await get("api/v1/dead-letters", { ...(run.what.filter ?? {}), limit: GATHERED, cursor });
    rows.push(...page.dead_letters);
    cursor = page.next_cursor;
  } while (cursor && !run.stopped && rows.length < run.total);
  rows.length = Math.min(rows.length, run.total);
  run.total = rows.length;
  return picked(rows);
}

async function each(run, byTopic) {
  const rate = Number(run.rate) || 0;
  const started = Date.now();
  // A portion takes a second at most where there is a rate.
  const size = rate ? Math.max(1, Math.min(PORTION, Math.floor(rate))) : PORTION;
  for (const [topic, ids] of byTopic) {
    for (let at = 0; at < ids.length && !run.stopped; at += size) {
      await portion(run, topic, ids.slice(at, at + size));
      run.draw();
      const ahead = rate ? ((run.done + run.failed) / rate) * 1000 - (Date.now() - started) : 0;
      if (ahead > 0 && !run.stopped) await new Promise((resolve) => setTimeout(resolve, ahead));
    }
  }
}

async function portion(run, topic, ids) {
  const body = { ids, filter: { topic }, ...(run.toOrigin ? { to_origin: true } : {}) };
  try {
    const report = await post(`api/v1/dead-letters/${run.verb}`, body);
    run.done += report.done;
    run.failed += report.failed;
    for (const id of ids) run.replayed.add(placeOf({ topic, id }));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.status === 404 && ids.length > 1) {
      // Somebody else has changed some: each by itself.
      for (const id of ids) if (!run.stopped) await portion(run, topic, [id]);
      return;
    }
    if (error.status === 0 || error.status === 401 || error.status === 403) throw error;
    const left = Object.entries(error.more.left ?? Object.fromEntries(ids.map((id) => [id, error.message])));
    run.done += error.more.done ?? 0;
    run.failed += error.more.failed ?? ids.length;
    run.left.push(...left.slice(0, NAMED - run.left.length));
  }
}

/** Counts what was replayed and failed once more, as long as one page holds what failed since. */
async function lookAgain(run) {
  if (run.looking || !run.replayed.size) return;
  run.looking = true;
  try {
    const found = await get("api/v1/dead-letters", { since: run.started, limit: GATHERED });
    run.again = found.next_cursor ? null : found.dead_letters.filter((row) => run.replayed.has(placeOf(row))).length;
  } catch {
    run.again = null;
  }
  run.looking = false;
}

const handledOf = (run) => {
  const names = new Set(run.preview.samples.map((row) => row.handler));
  return new Map((live.snapshot?.handlers ?? [])
    .filter((one) => names.has(one.name)).map((one) => [one.name, one.counters]));
};

function progress(run) {
  const left = Math.max(0, run.total - run.done - run.failed);
  const ended = run.step === "ended";
  return [
    h("progress", { max: Math.max(1, run.total), value: run.done + run.failed, "aria-label": "Progress" }),
    facts([["Done", count(run.done)], ["Failed", count(run.failed)], ["Left", count(left)],
      run.verb === "replay" ? ["Dead letters again", count(run.again)] : null]),
    run.broken ? h("p", { class: "failure", role: "alert" }, run.broken.message) : null,
    ended ? h("p", { role: "status" }, run.stopped ? "Stopped." : left ? "Ended early." : "Finished.") : null,
    run.verb === "replay" && run.done ? since(run) : null,
    run.left.length ? table("Failures", [{ name: "Id" }, { name: "Why", class: "wide" }],
      run.left.map(([id, why]) => ({ key: id, cells: [messageLink(id), text(why, 300)] }))) : null,
    h("div", { class: "buttons" }, ended
      ? h("button", { type: "button", class: "primary", "data-key": "close", onclick: run.close }, "Close")
      : h("button", { type: "button", "data-key": "stop", onclick: () => {
        run.stopped = true;
      } }, "Stop")),
  ];
}

/** What became of them, by the counters of their handlers since the replay began. */
function since(run) {
  const now = handledOf(run);
  const rows = [...now].map(([name, counters]) => {
    const before = run.before.get(name) ?? {};
    const grown = (key) => counters[key] === undefined ? UNKNOWN
      : number(Math.max(0, counters[key] - (before[key] ?? 0)));
    return { key: name, cells: [handlerLink(name), grown("handled"), grown("failed_runs"), grown("dead_lettered")] };
  });
  if (!rows.length) return null;
  return [h("h3", {}, "The handler since the replay began, with all of its messages"),
    table("Since the replay began", [{ name: "Handler" }, { name: "Handled", number: true },
      { name: "Failed runs", number: true }, { name: "New dead letters", number: true }], rows)];
}
