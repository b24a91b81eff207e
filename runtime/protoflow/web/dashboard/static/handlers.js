// The handlers: a list, and one of them with its policy, histogram and errors.

import { Resource, get, post } from "./api.js";
import { announce, h, s } from "./dom.js";
import { UNKNOWN, clock, count, duration, millis, number, percent, plural, text, when } from "./format.js";
import { live } from "./live.js";
import { failedShare } from "./overview.js";
import { facts, failure, handlerLink, link, section, shown, skeleton, state, table } from "./parts.js";

export function open(context, name) {
  return name ? openOne(context, name) : openList(context);
}

function openList(context) {
  return {
    title: "Handlers",
    moved: () => {},
    view: () => {
      const query = context.query().q ?? "";
      return [h("h1", {}, "Handlers"), live.snapshot ? list(live.snapshot, query, context) : skeleton()];
    },
  };
}

function list(snapshot, query, context) {
  const lag = new Map(snapshot.lag.map((one) => [`${one.topic}/${one.group}`, one]));
  const wanted = query.toLowerCase();
  const found = snapshot.handlers.filter((one) =>
    `${one.name} ${one.topic} ${one.group}`.toLowerCase().includes(wanted));
  return [
    h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
      h("label", {}, "Filter ", h("input", { type: "search", name: "filter", value: query,
        oninput: (event) => context.go("handlers", { q: event.currentTarget.value }, { replace: true }) }))),
    table("Handlers", [{ name: "Name" }, { name: "State" }, { name: "msg/s", number: true },
      { name: "Failed", number: true }, { name: "p50 (ms)", number: true },
      { name: "p95 (ms)", number: true }, { name: "p99 (ms)", number: true },
      { name: "In flight", number: true }, { name: "Waiting", number: true },
      { name: "Oldest", number: true }],
    found.map((one) => {
      const waits = lag.get(one.subscription);
      const latency = one.runs ? one.latency_seconds : {};
      return { key: one.name, cells: [
        handlerLink(one.name), state(one.state), number(one.messages_per_second),
        percent(failedShare(one)), millis(latency.p50), millis(latency.p95), millis(latency.p99),
        count(one.in_flight), count(waits?.waiting), duration(waits?.oldest_seconds),
      ] };
    }), query && snapshot.handlers.length ? `No handler matches ${query}.` : "No handlers registered."),
    h("p", { class: "note" }, "In flight, waiting and oldest are of the subscription, which ",
      "handlers of one topic and group share. Rates are of the last 60 s."),
  ];
}

function openOne(context, name) {
  const path = `api/v1/handlers/${encodeURIComponent(name)}`;
  const one = new Resource(() => get(path), context.update);
  let acted = null;
  one.reload();
  const timer = setInterval(() => document.hidden || one.reload(), 4000);
  const act = async (verb) => {
    try {
      await post(`${path}/${verb}`, {});
      acted = null;
      announce(`${verb}: done`);
    } catch (error) {
      acted = error;
    }
    one.reload();
  };
  return {
    title: name,
    view: () => [h("h1", {}, h("bdi", {}, name)), acted ? failure(acted) : null,
      shown(one, (row) => detail(row, act, context))],
    close: () => clearInterval(timer),
  };
}

function detail(row, act, context) {
  const lag = live.snapshot?.lag.find((one) => `${one.topic}/${one.group}` === row.subscription);
  const topic = live.snapshot?.topics.find((one) => one.topic === row.dead_letter_topic);
  const latency = row.runs ? row.latency_seconds : {};
  return [
    actions(row, act, context),
    row.problems.map((problem) => h("p", { class: "failure" }, problem)),
    section("Now", facts([
      ["State", state(row.state)], ["Handled", count(row.counters.handled)],
      ["Rate", `${number(row.messages_per_second)} msg/s`],
      ["Failed runs", `${count(row.counters.failed_runs)} (${percent(failedShare(row))})`],
      ["p50", duration(latency.p50)], ["p95", duration(latency.p95)], ["p99", duration(latency.p99)],
      ["In flight", `${count(row.in_flight)} of ${count(row.in_flight_limit)}`],
      ["Waiting", count(lag?.waiting)], ["Oldest", duration(lag?.oldest_seconds)],
      ["Dead letters", topic
        ? link("dead-letters", plural(topic.waiting, "dead letter"), { handler: row.name }) : UNKNOWN],
      ["Last run", when(row.last_run_at)],
    ])),
    section("Errors", errors(row)),
    section("Run time", histogram(row)),
    section("Policy", policy(row)),
    section("Place", facts([
      ["Topic", row.topic], ["Group", row.group], ["Publishes to", row.publishes || "nowhere"],
      ["Dead letters go to", row.dead_letter_topic || "nowhere"],
      ["Types", row.types.join(", ") || "every type"],
    ])),
  ];
}

function actions(row, act, context) {
  if (row.state === "elsewhere") {
    return h("p", { class: "note" }, "No process of this handler is seen here. Pause and resume it ",
      "in the dashboard of its service.");
  }
  const paused = row.state === "paused";
  const shares = row.shares_subscription_with;
  return h("div", { class: "actions" },
    h("button", { type: "button", disabled: paused || !context.can("operate"),
      onclick: () => act("pause") }, "Pause"),
    h("button", { type: "button", disabled: row.state === "running" || !context.can("operate"),
      onclick: () => act("resume") }, "Resume"),
    h("span", { class: "note" }, "This process only",
      shares.length ? `; shares its subscription with: ${shares.join(", ")}` : "", "."));
}

function errors(row) {
  const categories = Object.entries(row.errors).filter(([, value]) => value);
  return [
    categories.length
      ? h("ul", { class: "chips" }, categories.map(([name, value]) =>
        h("li", {}, `${name} `, h("strong", {}, count(value)))))
      : h("p", { class: "empty" }, row.state === "elsewhere"
        ? "Errors are counted in the processes of the service." : "No errors since the start."),
    grouped(row.recent_errors).length ? table("Last errors",
      [{ name: "Error", class: "wide" }, { name: "Of the last ten", number: true },
        { name: "Last seen" }, { name: "Dead letters" }],
      grouped(row.recent_errors).map((one) => ({ key: one.error, cells: [
        text(one.error, 300), count(one.count), when(one.at),
        link("dead-letters", "Its dead letters",
          { handler: row.name, error: one.error.split(":")[0] }),
      ] }))) : null,
  ];
}

function grouped(recent) {
  const found = new Map();
  for (const { at, error } of recent) {
    const one = found.get(error) ?? { error, count: 0, at };
    one.count += 1;
    found.set(error, one);
  }
  return [...found.values()];
}

/** Runs by how long they took; the axis is logarithmic, as the bounds are. */
function histogram(row) {
  let before = 0;
  const bins = row.histogram.map(({ seconds, runs }, index, all) => {
    const bin = { from: index ? all[index - 1].seconds : 0, to: seconds, runs: runs - before };
    before = runs;
    return bin;
  });
  const most = Math.max(...bins.map((bin) => bin.runs), 0);
  if (!most) return h("p", { class: "empty" }, "No runs yet.");
  const [low, high, width, height] = [Math.log10(0.0025), Math.log10(20), 720, 120];
  const x = (seconds) => 8 + ((Math.log10(seconds) - low) / (high - low)) * (width - 16);
  const name = (bin) => bin.to === null
    ? `over ${duration(bin.from)}` : `${bin.from ? `${duration(bin.from)} to ` : "up to "}${duration(bin.to)}`;
  return [
    h("div", { class: "histogram", "aria-hidden": "true" },
      s("svg", { viewBox: `0 0 ${width} ${height + 34}` },
        bins.map((bin) => {
          const [left, right] = [x(bin.from || 0.0025), x(bin.to ?? 20)];
          const tall = bin.runs ? Math.max(2, (bin.runs / most) * height) : 0;
          return s("rect", { x: left + 1, width: Math.max(1, right - left - 2), y: height - tall + 12,
            height: tall, class: "bar" }, s("title", {}, `${name(bin)}: ${count(bin.runs)}`));
        }),
        [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10].map((seconds) =>
          s("text", { x: x(seconds), y: height + 28, "text-anchor": "middle" }, seconds * 1000)),
        s("text", { x: 4, y: 10 }, `${count(most)} runs`),
        s("text", { x: width - 2, y: height + 28, "text-anchor": "end" }, "ms"))),
    h("details", { "data-key": "bins" }, h("summary", {}, "As a table"),
      table("Runs by how long they took", [{ name: "Took" }, { name: "Runs", number: true }],
        bins.filter((bin) => bin.runs).map((bin) => ({ cells: [name(bin), count(bin.runs)] })))),
  ];
}

/** The values of a policy that the sentences name by their longer paths, or not at all. */
const NESTED = new Set(["retry", "on_exhausted", "demands"]);

/** The policy in words, and where each part comes from. */
function policy(row) {
  const found = row.policy;
  const said = new Set();
  const from = (...leaves) => {
    for (const leaf of leaves) said.add(leaf);
    const origins = [...new Set(leaves.map((leaf) => row.policy_origins[leaf]).filter(Boolean))];
    const given = origins.filter((one) => one !== "built in");
    return given.length ? ` \u2014 from ${given.join(" and ")}` : " \u2014 built in";
  };
  const retry = found.retry;
  const lines = [
    [`${plural(retry.max_attempts, "attempt")}, ${duration(retry.initial_backoff)} \u00d7` +
      `${number(retry.backoff_multiplier)} up to ${duration(retry.max_backoff)}` +
      (retry.max_elapsed ? `, for at most ${duration(retry.max_elapsed)}` : ""),
    from("retry.max_attempts", "retry.initial_backoff", "retry.backoff_multiplier", "retry.max_backoff",
      "retry.max_elapsed")],
    [found.timeout ? `A run may take ${duration(found.timeout)}` : "Runs have no time limit",
      from("timeout")],
    [`${plural(found.concurrency, "message")} at once`, from("concurrency")],
    [{ none: "In any order", per_key: "In order by key", per_partition: "In order by partition" }[
      String(found.ordering).toLowerCase()] ?? `Order: ${found.ordering}`, from("ordering")],
    [{ drop: "After the last attempt the message is dropped",
      block: "After the last attempt the message is retried forever" }[
      String(found.on_exhausted).toLowerCase()] ?? "After the last attempt the message becomes a dead letter",
    from("dead_letter.on_exhausted")],
    [`Messages of unknown types: ${String(found.unhandled).toLowerCase().replaceAll("_", " ")}`, from("unhandled")],
    [`A new group starts at the ${String(found.start).toLowerCase()} message`, from("start")],
  ];
  // What has no sentence of its own: a leaf that is new, and switches that are on.
  for (const [name, value] of Object.entries(found)) {
    if (!said.has(name) && !NESTED.has(name) && value !== null && value !== false) {
      lines.push([`${name}: ${value}`, from(name)]);
    }
  }
  return h("ul", { class: "policy" }, lines.map(([what, origin]) =>
    h("li", {}, what, h("span", { class: "note" }, origin))));
}
