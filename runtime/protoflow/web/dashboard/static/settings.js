// Settings, capabilities, versions, processes, and what operators did.

import { Resource, get } from "./api.js";
import { h } from "./dom.js";
import { UNKNOWN, ago, bytes, count, duration, text, when } from "./format.js";
import { live } from "./live.js";
import { facts, failure, section, shown, skeleton, state, table } from "./parts.js";

export function open(context) {
  const settings = new Resource(() => get("api/v1/settings"), context.update);
  const actions = new Resource(() => get("api/v1/actions"), context.update);
  settings.reload();
  actions.reload();
  const timer = setInterval(() => document.hidden || actions.reload(), 5000);
  return {
    title: "Settings",
    close: () => clearInterval(timer),
    view: () => [
      h("h1", {}, "Settings"),
      section("Processes", live.snapshot ? processes(live.snapshot) : skeleton()),
      section("Operator actions", shown(actions, audit)),
      shown(settings, (found) => [
        section("Settings", table("Settings", [{ name: "Key" }, { name: "Value", class: "wide" },
          { name: "Unit" }, { name: "Origin" }, { name: "Meaning", class: "wide" }],
        found.settings.map((one) => ({ key: one.name, class: one.origin === "built in" ? "" : "changed",
          cells: [h("code", {}, one.name), text(valueOf(one), 200), one.unit === "bytes" ? UNKNOWN : one.unit || UNKNOWN,
            one.origin, one.help] })))),
        section("Capabilities of the transport", h("ul", { class: "chips" },
          Object.entries(found.capabilities).map(([name, value]) => h("li", {
            class: value === false ? "off" : "" },
          h("span", {}, `${name.replaceAll("_", " ")}: ${capability(name, value)}`))))),
        section("Versions", facts(Object.entries(found.versions))),
      ]),
    ],
  };
}

const NONE = { None: "not set", "{}": "none", "()": "none", "": "not set", True: "yes", False: "no" };

const valueOf = ({ value, unit }) =>
  NONE[value] ?? (unit === "bytes" ? bytes(Number(value)) : value.replace(/^\((.*?),?\)$/, "$1"));

function capability(name, value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (value === null) return "no limit";
  return name.endsWith("_bytes") ? bytes(value) : value;
}

function processes(snapshot) {
  return table("Processes", [{ name: "Host" }, { name: "PID", number: true }, { name: "State" },
    { name: "Up for" }, { name: "Last seen" }, { name: "Version" }, { name: "Subscriptions" }],
  snapshot.processes.map((one) => ({ key: `${one.host}:${one.pid}`, cells: [
    one.host, String(one.pid), state(one.ready ? "ok" : "not ready"),
    one.started_at ? duration((Date.now() - Date.parse(one.started_at)) / 1000) : UNKNOWN,
    ago(one.seen_at ?? snapshot.time), one.version,
    one.subscriptions.map((each) => h("div", {}, `${each.name} `, state(each.state),
      each.in_flight ? ` ${count(each.in_flight)} in flight` : "")),
  ] })));
}

function audit(found) {
  if (!found.recorded) return h("p", { class: "empty" }, `Not recorded: ${found.note}.`);
  return table("Operator actions", [{ name: "Time" }, { name: "Action" }, { name: "Target" },
    { name: "Filter", class: "wide" }, { name: "Messages", number: true }, { name: "Result" },
    { name: "Role" }, { name: "Address" }, { name: "Service" }],
  found.actions.map((one) => ({ cells: [
    when(one.time), one.action, h("bdi", {}, one.target), text(one.detail, 300),
    ["pause", "resume", "drain"].includes(one.action) ? UNKNOWN : count(one.count),
    text(one.result, 100), one.role || UNKNOWN, one.address || UNKNOWN, h("bdi", {}, one.actor),
  ] })), "No operator actions recorded.");
}
