// The frame around the pages: navigation, state of the service, search, theme and role.

import { BASE, Resource, address, get, onSignedOut, post } from "./api.js";
import { drawCharts, redrawCharts } from "./charts.js";
import { announce, h, show } from "./dom.js";
import { clock } from "./format.js";
import { live, start, stop } from "./live.js";
import { signIn } from "./sign_in.js";
import * as overview from "./overview.js";
import * as handlers from "./handlers.js";
import * as topology from "./topology.js";
import * as deadLetters from "./dead_letters.js";
import * as message from "./message.js";
import * as contract from "./contract.js";
import * as settings from "./settings.js";

const PAGES = [
  { path: "", name: "Overview", page: overview, icon: "M3 12h4l3-8 4 16 3-8h4" },
  { path: "handlers", name: "Handlers", page: handlers, icon: "M4 5h16M4 12h16M4 19h10" },
  { path: "topology", name: "Topology", page: topology, icon: "M5 6h5v4H5zM14 14h5v4h-5zM10 8h4v8" },
  { path: "dead-letters", name: "Dead letters", page: deadLetters, icon: "M3 6h18v13H3zM3 6l9 7 9-7" },
  { path: "messages", name: "Message", page: message, icon: "M4 5h16v11H9l-5 4z" },
  { path: "contract", name: "Contract", page: contract, icon: "M6 3h9l4 4v14H6zM9 12h7M9 16h7" },
  { path: "settings", name: "Settings", page: settings,
    icon: "M4 8h10M18 8h2M4 16h2M10 16h10M14 6v4M6 14v4" },
];

const context = {
  session: null,
  live,
  go,
  update,
  query: () => Object.fromEntries(new URL(location.href).searchParams),
  can: (role) => role === context.session?.role || context.session?.role === "operate",
};

let current = null;
let opened = null;
let place = null;
let scheduled = false;

/** Draws what has changed, once for all changes of a moment. */
function update() {
  if (scheduled) return;
  scheduled = true;
  queueMicrotask(() => {
    scheduled = false;
    draw();
  });
}

function go(path, query = {}, { replace = false } = {}) {
  const url = path.startsWith("http") ? path : address(path, query);
  if (url === location.href) replace = true;
  history[replace ? "replaceState" : "pushState"](null, "", url);
  route();
}

/** A part of an address; what nobody has encoded stays as it is. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Opens the page of the address. */
function route() {
  const url = new URL(location.href);
  const below = url.pathname.slice(BASE.pathname.length);
  const [first, ...rest] = below.split("/");
  const found = PAGES.find((one) => one.path === first) ?? PAGES[0];
  const parameter = decoded(rest.join("/"));
  const same = current === found && place === parameter;
  current = found;
  place = parameter;
  if (same && opened?.moved) opened.moved();
  else {
    opened?.close?.();
    opened = found.page.open(context, parameter);
    window.scrollTo(0, 0);
  }
  document.title = `${opened.title ?? found.name} \u00b7 Protoflow`;
  if (!same) announce(found.name);
  update();
}

function draw() {
  const body = context.session === null
    ? h("main", { id: "main", tabindex: "-1" })
    : context.session.role === "none" ? entrance() : page();
  show(document.getElementById("app"), body);
  drawCharts();
}

function entrance() {
  const enter = async (session) => {
    context.session = session;
    start(changed);
    route();
  };
  return h("main", { id: "main", tabindex: "-1", class: "entrance", "data-key": "entrance" },
    signIn(context.session, enter, update));
}

function page() {
  return h("div", { class: live.stale ? "frame stale" : "frame", "data-key": "frame" },
    h("button", { class: "skip", type: "button",
      onclick: () => document.getElementById("main").focus() }, "Skip to content"),
    navigation(), header(),
    h("main", { id: "main", tabindex: "-1" }, opened.view()));
}

function navigation() {
  return h("nav", { "aria-label": "Pages" },
    h("a", { class: "brand", href: address(""), "aria-label": "Protoflow, overview" },
      icon("M4 8h6l4 8h6M4 16h6l4-8h6"), h("span", {}, "Protoflow")),
    h("ul", {}, PAGES.filter((one) => one.path !== "messages" || current === one).map((one) =>
      h("li", { "data-key": one.path },
        h("a", { href: address(one.path), "aria-current": one === current ? "page" : null },
          icon(one.icon), h("span", {}, one.name), one.path === "dead-letters" ? badge() : null)))));
}

function badge() {
  const waiting = live.snapshot?.topics.reduce((all, one) => all + one.waiting, 0);
  if (!waiting) return null;
  return h("span", { class: "badge" }, waiting > 9999 ? "9999+" : waiting,
    h("span", { class: "hidden" }, " waiting"));
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

function header() {
  const process = live.snapshot?.processes[0];
  return h("header", {},
    h("div", { class: "what" },
      h("strong", {}, process?.name ?? "\u2026"),
      process ? h("span", { class: "url" }, process.transport) : null,
      process?.namespace ? h("span", {}, `namespace ${process.namespace}`) : null,
      readiness(), liveness()),
    search(), theme(), role());
}

function readiness() {
  const processes = live.snapshot?.processes;
  if (!processes) return null;
  const wrong = processes.filter((one) => !one.ready);
  if (!wrong.length) return h("span", { class: "state good" }, "Ready");
  const [place, reason] = Object.entries(wrong[0].problems)[0] ?? ["", "unknown"];
  return h("span", { class: "state bad", title: `${place}: ${reason}` }, "Not ready: ",
    h("bdi", { class: "reason" }, reason));
}

function liveness() {
  if (live.stale) {
    return h("span", { class: "state warn", role: "status" },
      `Reconnecting; data from ${clock(live.at)}`);
  }
  if (live.problem) return h("span", { class: "state bad", role: "status" }, live.problem);
  return h("span", { class: live.snapshot ? "state good" : "state plain" },
    live.snapshot ? "Live" : "Connecting");
}

function search() {
  const handlers = live.snapshot?.handlers ?? [];
  const topics = [...new Set(handlers.flatMap((one) => [one.topic, one.publishes]))].filter(Boolean);
  const names = [...handlers.map((one) => one.name), ...topics];
  return h("form", { class: "search", role: "search", onsubmit: (event) => {
    event.preventDefault();
    const field = event.currentTarget.elements.q;
    find(field.value.trim(), handlers, topics);
    field.value = "";
    field.blur();
  } },
  h("input", { name: "q", type: "search", list: "known", autocomplete: "off",
    "aria-label": "Search for a message id, handler or topic",
    placeholder: "Id, handler or topic" }),
  h("datalist", { id: "known" }, names.map((name) => h("option", { value: name }))));
}

function find(text, handlers, topics) {
  if (!text) return;
  const lower = text.toLowerCase();
  const exact = handlers.find((one) => one.name === text);
  const like = handlers.filter((one) => one.name.toLowerCase().includes(lower));
  if (exact || like.length === 1) go(`handlers/${encodeURIComponent((exact ?? like[0]).name)}`);
  else if (topics.some((one) => one.toLowerCase().includes(lower))) go("topology", { q: text });
  else if (like.length) go("handlers", { q: text });
  else go(`messages/${encodeURIComponent(text)}`);
}

function theme() {
  const chosen = document.documentElement.dataset.theme ?? "system";
  return h("select", { "aria-label": "Theme", class: "theme", onchange: (event) => {
    const value = event.currentTarget.value;
    if (value === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
    try {
      localStorage.setItem("protoflow-theme", value);
    } catch {
      // It holds until the page is closed.
    }
    redrawCharts();
  } }, ["system", "light", "dark"].map((one) =>
    h("option", { value: one, selected: one === chosen }, `Theme: ${one}`)));
}

function role() {
  const session = context.session;
  return h("div", { class: "role" },
    h("span", { title: session.role === "operate"
      ? "You may pause, replay and purge" : "You may look; http_token lets you act" },
    session.role === "operate" ? "Operator" : "Reader"),
    session.tokens ? h("button", { type: "button", class: "small", onclick: async () => {
      context.session = await post("api/v1/logout");
      leave();
    } }, "Sign out") : null);
}

/** Shows the entrance, and nothing of what was seen before. */
function leave() {
  stop();
  opened?.close?.();
  opened = null;
  update();
}

document.addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[href]");
  if (!anchor || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (anchor.hasAttribute("download") || anchor.target) return;
  if (!anchor.href.startsWith(BASE.href) || anchor.href.startsWith(address("api/"))) return;
  event.preventDefault();
  go(anchor.href);
});
window.addEventListener("popstate", route);
window.addEventListener("resize", () => drawCharts());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawCharts);
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.nodeName);
  if (event.key === "/" && !typing && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    document.querySelector(".search input")?.focus();
  }
});

const session = new Resource(() => get("api/v1/session"), () => {
  if (session.value) context.session = session.value;
  else {
    live.problem = session.error?.message;
    setTimeout(() => session.reload(), 2000);
    show(document.getElementById("app"), h("main", { id: "main", class: "entrance" },
      h("h1", {}, "Protoflow"), h("p", { role: "alert" }, session.error.message)));
    return;
  }
  if (context.session.role === "none") return leave();
  start(changed);
  route();
});

function changed() {
  opened?.refreshed?.();
  update();
}

onSignedOut(() => {
  if (context.session && context.session.role !== "none") session.reload();
});
session.reload();
