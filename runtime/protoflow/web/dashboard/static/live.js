// The stream of snapshots: one for a page, none while the page is hidden.

import { address, get } from "./api.js";

//: Milliseconds without a snapshot after which what is shown is stale.
const STALE = 10000;
const HOUR = 3600000;

export const live = {
  snapshot: null,
  at: null,
  stale: false,
  problem: null,
  //: What was seen lately, the oldest first: for rates and charts.
  samples: [],
  since: new Map(),
};

let source = null;
let retry = null;
let ended = false;
let changed = null;

/** Begins to look on; calls whenever something has changed. */
export function start(called) {
  if (changed === null) {
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    setInterval(check, 1000);
  }
  changed = called;
  ended = false;
  close();
  open();
}

/** Ends the stream and forgets what was seen: the session is over. */
export function stop() {
  ended = true;
  close();
  Object.assign(live, { snapshot: null, at: null, stale: false, problem: null, samples: [] });
  live.since.clear();
}

function close() {
  clearTimeout(retry);
  if (source) source.close();
  source = null;
}

function open() {
  if (source || ended || document.hidden) return;
  source = new EventSource(address("api/v1/stream"), { withCredentials: false });
  source.addEventListener("snapshot", (event) => take(JSON.parse(event.data)));
  source.addEventListener("problem", (event) => {
    live.problem = JSON.parse(event.data).detail;
    changed();
  });
  source.onerror = () => {
    live.stale = live.snapshot !== null;
    changed();
    if (source && source.readyState === EventSource.CLOSED) {
      close();
      retry = setTimeout(refused, 2000);
    }
  };
}

// The stream does not say why it was refused; a plain question does.
async function refused() {
  try {
    await get("api/v1/session");
    live.problem = null;
    await get("api/v1/processes");
  } catch (error) {
    live.problem = error.message;
  }
  changed();
  open();
}

function check() {
  const stale = live.at !== null && !document.hidden && Date.now() - live.at > STALE;
  if (stale && !live.stale) {
    live.stale = true;
    changed();
  }
}

function take(snapshot) {
  live.snapshot = snapshot;
  live.at = Date.now();
  live.stale = false;
  live.problem = null;
  live.samples.push({ at: live.at, ...measured(snapshot) });
  while (live.samples.length > 2 && live.samples[0].at < live.at - HOUR) live.samples.shift();
  const problems = new Set(problemsOf(snapshot).map((one) => one.key));
  for (const key of live.since.keys()) if (!problems.has(key)) live.since.delete(key);
  for (const key of problems) if (!live.since.has(key)) live.since.set(key, live.at);
  changed();
}

const known = (values) => values.filter((value) => value !== null && value !== undefined);
const sum = (values) => (values.length ? values.reduce((all, one) => all + one, 0) : null);

/** What tiles and charts show of a snapshot; null is unknown. */
export function measured(snapshot) {
  const subscriptions = new Map(snapshot.handlers.map((one) => [one.subscription, one]));
  const each = [...subscriptions.values()];
  const counted = (name) => sum(known(snapshot.handlers.map((one) => one.counters[name])));
  return {
    in_flight: sum(known(each.map((one) => one.in_flight))),
    limit: sum(known(each.map((one) => one.in_flight_limit))),
    waiting: sum(known(snapshot.lag.map((one) => one.waiting))),
    oldest: known(snapshot.lag.map((one) => one.oldest_seconds))
      .reduce((most, one) => Math.max(most ?? 0, one), null),
    dead: sum(snapshot.topics.map((one) => one.waiting)),
    handled: counted("handled"),
    retried: counted("retried"),
    dead_lettered: counted("dead_lettered"),
    rate: sum(known(snapshot.handlers.map((one) => one.messages_per_second))),
    handlers: Object.fromEntries(snapshot.handlers.map((one) => [one.name, one.counters])),
  };
}

/** How much a counter grew in the last so many seconds, per second; null: not known yet. */
export function growth(read, seconds = 60) {
  const last = live.samples.at(-1);
  const first = live.samples.find((one) => one.at >= (last?.at ?? 0) - seconds * 1000);
  if (!last || last.at - first.at < 1500) return null;
  const [before, after] = [read(first), read(last)];
  if (before === null || before === undefined || after === null || after === undefined) return null;
  return after < before ? null : ((after - before) * 1000) / (last.at - first.at);
}

/** What is wrong in the processes that are seen. */
export function problemsOf(snapshot) {
  return snapshot.processes.flatMap((process) =>
    Object.entries(process.problems).map(([place, reason]) => ({
      key: `${process.host}:${process.pid}:${place}:${reason}`, place, reason, process,
    })));
}
