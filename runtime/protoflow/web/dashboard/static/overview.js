// Whether the service is healthy, in ten seconds.

import { Resource, get } from "./api.js";
import { hourChart } from "./charts.js";
import { copyButton, h } from "./dom.js";
import { UNKNOWN, clock, count, duration, millis, number, percent, plural, text, when } from "./format.js";
import { growth, live, measured, problemsOf } from "./live.js";
import { handlerLink, link, section, skeleton, state, table } from "./parts.js";

export function open(context) {
  const past = new Resource(() => get("api/v1/history"), context.update);
  const contract = new Resource(() => get("api/v1/contract"), context.update);
  past.reload();
  const timer = setInterval(() => past.reload(), 60000);
  return {
    title: "Overview",
    view: () => [h("h1", { class: "hidden" }, "Overview"),
      live.snapshot ? content(live.snapshot, past.value, contract, context) : skeleton()],
    close: () => clearInterval(timer),
  };
}

function content(snapshot, past, contract, context) {
  const now = measured(snapshot);
  return [tiles(snapshot, now, past), nothingYet(snapshot, now, contract, context),
    problems(snapshot), attention(snapshot)];
}

function tiles(snapshot, now, past) {
  const waiting = snapshot.topics.length > 0;
  const handled = growth((one) => one.handled);
  const retries = growth((one) => one.retried);
  const news = hourOfDeadLetters(snapshot, past);
  return h("div", { class: "tiles" },
    tile("handled", "Handled", number(handled), "msg/s", rates(past, "handled", 60, handled),
      number, past),
    tile("oldest", "Oldest waiting", duration(now.oldest), "", gauge(past, "oldest_seconds", "oldest"),
      duration, null),
    tile("in-flight", "In flight", count(now.in_flight), now.limit === null ? "" : `of ${count(now.limit)}`,
      gauge(past, "in_flight", "in_flight"), count, null),
    tile("retries", "Retries", retries === null ? UNKNOWN : number(retries * 60), "per min",
      rates(past, "retried", 1, retries === null ? null : retries * 60), number, past),
    tile("dead", "Dead letters", waiting ? count(now.dead) : UNKNOWN,
      news === null ? "" : `+${count(news)} in 1 h`, gauge(past, "dead_letters", "dead"), count, null,
      "dead-letters", now.dead > 0),
    tile("lag", "Lag", count(now.waiting), "messages", gauge(past, "waiting", "waiting"), count, null));
}

function tile(key, name, value, unit, points, format, past, to = "handlers", bad = false) {
  return h("section", { class: bad ? "tile bad" : "tile", "data-key": key, "aria-label": name },
    h("h2", {}, link(to, name)),
    h("p", { class: "value" }, value, unit ? h("span", { class: "unit" }, ` ${unit}`) : null),
    hourChart(key, points, { label: name, format }),
    h("p", { class: "note" }, noteOf(points, past)));
}

function noteOf(points, past) {
  const first = points.find(([, value]) => value !== null);
  if (past?.recorded) return "From the journal.";
  if (!first) return "Nothing recorded yet.";
  return past
    ? `Not recorded before ${clock(first[0] * 1000)}: the journal is off.`
    : `Recorded while viewed, from ${clock(first[0] * 1000)}.`;
}

/** Minutes of the journal as rates; without it, what was seen since the page was opened. */
function rates(past, name, perSeconds, now) {
  if (past?.recorded) {
    // The minute that has begun is not over: what was seen lately stands for it.
    const points = byMinute(past.minutes, name, perSeconds);
    return now === null ? points : [...points, [Date.now() / 1000, now]];
  }
  const samples = merged(past, name, name).filter(([, value]) => value !== null);
  const points = [];
  for (let index = 1; index < samples.length; index += 1) {
    const seconds = samples[index][0] - samples[index - 1][0];
    const grown = samples[index][1] - samples[index - 1][1];
    const scale = perSeconds === 60 ? 1 : 60;
    points.push([samples[index][0], grown < 0 || seconds > 60 ? null : (grown / seconds) * scale]);
  }
  return points;
}

function byMinute(minutes, name, perSeconds) {
  const sums = new Map();
  const now = Math.floor(Date.now() / 60000) * 60;
  const first = Math.min(now, ...minutes.map((one) => Date.parse(one.time) / 1000));
  // Before the first minute nothing was recorded; after it a minute without an entry was quiet.
  for (let at = now - 3600; at < now - 60; at += 60) sums.set(at, at < first ? null : 0);
  for (const one of minutes) {
    const at = Date.parse(one.time) / 1000;
    if (sums.get(at) !== undefined) sums.set(at, sums.get(at) + one[name]);
  }
  return [...sums].map(([at, value]) => [at + 30, value === null ? null : value / perSeconds]);
}

/** What the service sampled while somebody looked, and what this page has seen since. */
function merged(past, theirs, ours) {
  const before = (past?.samples ?? []).map((one) => [Date.parse(one.time) / 1000, one[theirs]]);
  const last = before.at(-1)?.[0] ?? 0;
  let at = last;
  for (const one of live.samples) {
    if (one.at / 1000 - at >= 9.5 || one === live.samples.at(-1)) {
      at = one.at / 1000;
      if (at > last) before.push([at, one[ours] ?? null]);
    }
  }
  return before;
}

function gauge(past, theirs, ours) {
  const points = [];
  for (const [at, value] of merged(past, theirs, ours)) {
    // Nobody looked meanwhile: a gap, not a line.
    if (points.length && at - points.at(-1)[0] > 60) points.push([at - 1, null]);
    points.push([at, value]);
  }
  return points;
}

/** How many dead letters came within the hour; null: not known. */
function hourOfDeadLetters(snapshot, past) {
  const hour = Date.now() - 3600000;
  const started = snapshot.processes.map((one) => Date.parse(one.started_at));
  if (snapshot.handlers.some((one) => one.state !== "elsewhere") && started.every((at) => at > hour)) {
    return snapshot.topics.reduce((all, one) => all + one.received, 0);
  }
  if (!past?.recorded) return null;
  return past.minutes.reduce((all, one) => all + one.dead_lettered, 0);
}

function nothingYet(snapshot, now, contract, context) {
  if (!snapshot.handlers.length) {
    return h("p", { class: "empty" }, "No handlers registered.");
  }
  if (now.handled !== 0 || now.waiting || now.dead || now.retried) return null;
  if (!contract.number) contract.reload();
  const topics = new Set(snapshot.handlers.map((one) => one.topic));
  const type = contract.value?.operations.find((one) => topics.has(one.topic))?.types[0] ?? "TYPE";
  const command = `protoflow publish ${type} '{}'`;
  return h("section", { class: "empty", "data-key": "empty" },
    h("p", {}, "No messages yet. Publish one: "),
    h("p", { class: "buttons" }, h("code", {}, command), copyButton(command)),
    h("p", {}, context.session.publish ? ["Or publish one on the page ", link("contract", "Contract"), "."]
      : ["The fields of each type are on the page ", link("contract", "Contract"), "."]));
}

function problems(snapshot) {
  const found = problemsOf(snapshot);
  return section("Problems", table("Problems",
    [{ name: "Subscription" }, { name: "Seen since" }, { name: "Reason" }, { name: "Page" }],
    found.map((one) => ({ key: one.key, cells: [
      one.place, when(new Date(live.since.get(one.key) ?? Date.now()).toISOString()),
      h("bdi", {}, one.reason), link("handlers", "Handlers", { q: one.place.split("/")[0] }),
    ] })), "No problems."));
}

export const failedShare = (one) => {
  const failed = one.counters.failed_runs;
  return one.runs ? (100 * failed) / one.runs : null;
};

function attention(snapshot) {
  const seen = snapshot.handlers.filter((one) => one.runs);
  const failing = seen.filter((one) => one.counters.failed_runs)
    .sort((one, other) => other.counters.failed_runs - one.counters.failed_runs).slice(0, 5);
  const slow = [...seen].sort((one, other) =>
    other.latency_seconds.p99 - one.latency_seconds.p99).slice(0, 5);
  return [
    section("Failing handlers", table("Failing handlers",
      [{ name: "Handler" }, { name: "State" }, { name: "Failed runs", number: true },
        { name: "Of all", number: true }, { name: "Last error", class: "wide" }, { name: "Dead letters", number: true }],
      failing.map((one) => ({ key: one.name, cells: [
        handlerLink(one.name), state(one.state), count(one.counters.failed_runs),
        percent(failedShare(one)), text(one.last_error, 200), deadLettersOf(snapshot, one),
      ] })), snapshot.handlers.some((one) => one.state !== "elsewhere")
        ? "No run has failed since the start." : "Runs are counted in the processes of the service.")),
    section("Slowest handlers", table("Slowest handlers",
      [{ name: "Handler" }, { name: "p99 (ms)", number: true }, { name: "p50 (ms)", number: true },
        { name: "msg/s", number: true }],
      slow.map((one) => ({ key: one.name, cells: [
        handlerLink(one.name), millis(one.latency_seconds.p99), millis(one.latency_seconds.p50),
        number(one.messages_per_second),
      ] })), "No runs yet.")),
  ];
}

function deadLettersOf(snapshot, handler) {
  const topic = snapshot.topics.find((one) => one.topic === handler.dead_letter_topic);
  if (!topic) return UNKNOWN;
  return link("dead-letters", plural(topic.waiting, "dead letter"), { handler: handler.name });
}
