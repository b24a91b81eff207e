// The topology: what leads where, how fast, as a graph and as a table.

import { Resource, get } from "./api.js";
import { h, s } from "./dom.js";
import { UNKNOWN, count, duration, number } from "./format.js";
import { HEIGHT, WIDTH, placed } from "./graph.js";
import { growth, live } from "./live.js";
import { facts, handlerLink, link, section, shown, state, table } from "./parts.js";

const KINDS = { producers: "Producers", topic: "Topic", handler: "Handler", dead_letters: "Dead letters" };
const MARGIN = 24;

export function open(context) {
  const found = new Resource(() => get("api/v1/topology"), context.update);
  const look = { x: 0, y: 0, zoom: null, drag: null };
  found.reload();
  return {
    title: "Topology",
    moved: () => context.update(),
    view: () => [h("h1", {}, "Topology"), shown(found, (topology) =>
      topology.nodes.some((node) => node.kind === "handler")
        ? view(withProducers(topology), look, context)
        : h("p", { class: "empty" }, "No generated handlers registered."))],
  };
}

/** Topics that no handler publishes to are fed by producers. */
function withProducers({ nodes, edges }) {
  const fed = new Set(edges.filter((edge) => edge.kind === "publishes").map((edge) => edge.to));
  const free = nodes.filter((node) => node.kind === "topic" && !fed.has(node.id));
  if (!free.length) return { nodes, edges };
  const producers = { id: "producers:", kind: "producers", name: "producers" };
  return {
    nodes: [producers, ...nodes],
    edges: [...free.map((node) => ({ kind: "publishes", from: producers.id, to: node.id })), ...edges],
  };
}

function numbers() {
  const handlers = new Map((live.snapshot?.handlers ?? []).map((one) => [`handler:${one.name}`, one]));
  const lag = new Map();
  for (const one of live.snapshot?.lag ?? []) {
    const id = `topic:${one.topic}`;
    if (one.waiting !== null) lag.set(id, (lag.get(id) ?? 0) + one.waiting);
  }
  const dead = new Map((live.snapshot?.topics ?? []).map((one) => [`dead_letters:${one.topic}`, one]));
  const rate = (edge) => {
    const consumes = handlers.get(edge.to);
    if (edge.kind === "consumes") return consumes?.messages_per_second ?? null;
    const name = handlers.get(edge.from)?.name;
    if (!name) {
      // Producers: what the readers of the topic take.
      const readers = [...handlers.values()].filter((one) => `topic:${one.topic}` === edge.to);
      return readers.length ? Math.max(...readers.map((one) => one.messages_per_second ?? 0)) : null;
    }
    return growth((one) =>
      one.handlers[name]?.[edge.kind === "publishes" ? "published" : "dead_lettered"]);
  };
  const retries = (handler) => growth((one) => one.handlers[handler.name]?.retried);
  return { handlers, lag, dead, rate, retries };
}

function view(topology, look, context) {
  const query = context.query();
  const known = numbers();
  const layout = placed(topology.nodes, topology.edges);
  const wanted = (query.q ?? "").toLowerCase();
  const hits = wanted ? topology.nodes.filter((node) => node.name.toLowerCase().includes(wanted)) : [];
  const selected = topology.nodes.find((node) => node.id === query.node) ?? (hits.length === 1 ? hits[0] : null);
  return [
    tools(query, hits, look, context),
    h("div", { class: "graph-and-panel" },
      graph(topology, layout, known, { look, selected, hits, query, context }),
      selected ? panel(selected, topology, known, query, context) : null),
    section("As a table", edgesTable(topology, known)),
  ];
}

function tools(query, hits, look, context) {
  const zoom = (factor) => {
    look.zoom = Math.min(4, Math.max(0.2, (look.zoom ?? 1) * factor));
    context.update();
  };
  return h("div", { class: "filters" },
    h("label", {}, "Find", h("input", { type: "search", name: "find", value: query.q ?? "",
      oninput: (event) => context.go("topology", { q: event.currentTarget.value }, { replace: true }) })),
    query.q ? h("p", { class: "note", role: "status" }, hits.length === 1 ? "1 hit" : `${hits.length} hits`) : null,
    h("div", { class: "buttons" },
      h("button", { type: "button", "aria-label": "Zoom in", onclick: () => zoom(1.25) }, "+"),
      h("button", { type: "button", "aria-label": "Zoom out", onclick: () => zoom(0.8) }, "\u2212"),
      h("button", { type: "button", onclick: () => {
        Object.assign(look, { x: 0, y: 0, zoom: null });
        context.update();
      } }, "Fit")));
}

function graph(topology, layout, known, { look, selected, hits, query, context }) {
  const zoom = look.zoom ?? 1;
  const width = (layout.width + 2 * MARGIN) / zoom;
  const height = (layout.height + 2 * MARGIN) / zoom;
  const choose = (node) => context.go("topology", { ...query, node: node.id }, { replace: true });
  const rates = topology.edges.map((edge) => known.rate(edge));
  const most = Math.max(1, ...rates.filter((rate) => rate !== null));
  return h("div", { class: "graph", "data-key": "graph" },
    s("svg", { viewBox: `${look.x - MARGIN} ${look.y - MARGIN} ${width} ${height}`, role: "group",
      "aria-label": "Graph of topics and handlers; the same as a table below",
      preserveAspectRatio: "xMidYMid meet", height: Math.max(180, layout.height + 2 * MARGIN),
      onpointerdown: (event) => {
        look.drag = { x: event.clientX, y: event.clientY };
      },
      onpointermove: (event) => {
        if (!look.drag || !event.buttons) return;
        const scale = width / event.currentTarget.clientWidth;
        look.x -= (event.clientX - look.drag.x) * scale;
        look.y -= (event.clientY - look.drag.y) * scale;
        look.drag = { x: event.clientX, y: event.clientY };
        context.update();
      },
      onkeydown: (event) => move(event, topology, layout, look, context),
    },
    topology.edges.map((edge, index) => arrow(edge, rates[index], most, layout)),
    topology.nodes.map((node) => box(node, known, layout, {
      chosen: selected?.id === node.id,
      dim: query.q && hits.length && !hits.includes(node),
      choose: () => choose(node),
    }))));
}

function arrow(edge, rate, most, layout) {
  const [from, to] = [layout.places.get(edge.from), layout.places.get(edge.to)];
  const down = edge.kind === "dead_letters";
  const start = down ? [from.x + WIDTH / 2, from.y + HEIGHT] : [from.x + WIDTH, from.y + HEIGHT / 2];
  const end = down ? [to.x + WIDTH / 2, to.y] : [to.x, to.y + HEIGHT / 2];
  const bend = down ? Math.max(20, (end[1] - start[1]) / 2) : Math.max(40, Math.abs(end[0] - start[0]) / 2);
  const curve = down
    ? `M${start} C${start[0]} ${start[1] + bend} ${end[0]} ${end[1] - bend} ${end}`
    : `M${start} C${start[0] + bend} ${start[1]} ${end[0] - bend} ${end[1]} ${end}`;
  const wide = rate ? 1.5 + (Math.log1p(rate) / Math.log1p(most)) * 5 : 1.5;
  const middle = down ? [end[0] + 8, end[1] - 18]
    : [(start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - 6];
  const quiet = down && !rate;
  return s("g", { class: `edge ${edge.kind}`, "data-key": `${edge.from}>${edge.to}`, "aria-hidden": "true" },
    s("path", { d: curve, "stroke-width": wide }),
    quiet ? null : s("text", { x: middle[0], y: middle[1], "text-anchor": down ? "start" : "middle" },
      rate === null ? UNKNOWN : `${number(rate)} msg/s`));
}

const cut = (name, length) => (name.length <= length ? name : `\u2026${name.slice(1 - length)}`);

function box(node, known, layout, { chosen, dim, choose }) {
  const { x, y } = layout.places.get(node.id);
  const handler = known.handlers.get(node.id);
  const retries = handler ? known.retries(handler) : null;
  const below = {
    producers: () => "",
    topic: () => `${count(known.lag.get(node.id))} waiting`,
    handler: () => `${number(handler?.messages_per_second)} msg/s`,
    dead_letters: () => `${count(known.dead.get(node.id)?.waiting)} dead letters`,
  }[node.kind]();
  const alarm = (node.kind === "dead_letters" && known.dead.get(node.id)?.waiting) ||
    handler?.problems.length;
  return s("g", { class: `node ${node.kind}${chosen ? " chosen" : ""}${dim ? " dim" : ""}${alarm ? " alarm" : ""}`,
    "data-key": node.id, "data-node": node.id, tabindex: "0", role: "button", "aria-pressed": String(chosen),
    "aria-label": `${KINDS[node.kind]} ${node.name}${below ? `, ${below}` : ""}` +
      (retries ? `, ${number(retries * 60)} retries/min` : ""),
    onclick: choose,
    onkeydown: (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose();
      }
    } },
  s("title", {}, node.name),
  s("rect", { x, y, width: WIDTH, height: HEIGHT, rx: node.kind === "topic" ? HEIGHT / 2 : 6 }),
  s("text", { x: x + WIDTH / 2, y: y + (below ? 20 : 28), "text-anchor": "middle", class: "name" }, cut(node.name, 28)),
  below ? s("text", { x: x + WIDTH / 2, y: y + 36, "text-anchor": "middle", class: "sub" }, below) : null,
  retries ? loop(x, y, retries) : null);
}

/** What a handler is given again: back into it, beneath. */
const loop = (x, y, retries) => [
  s("path", { class: "loop", d: `M${x + 20} ${y + HEIGHT} c0 18 36 18 36 0` }),
  s("text", { class: "sub", x: x - 6, y: y + HEIGHT + 28 },
    `${number(retries * 60)} retries/min`),
];

/** Arrow keys go to the nearest node in that direction. */
function move(event, topology, layout, look, context) {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "+" || event.key === "-") {
    look.zoom = Math.min(4, Math.max(0.2, (look.zoom ?? 1) * (event.key === "+" ? 1.25 : 0.8)));
    context.update();
    return;
  }
  const id = event.target.closest?.("[data-node]")?.getAttribute("data-node");
  if (!way || !id) return;
  event.preventDefault();
  const here = layout.places.get(id);
  const costs = topology.nodes.filter((node) => node.id !== id).map((node) => {
    const there = layout.places.get(node.id);
    const [dx, dy] = [there.x - here.x, there.y - here.y];
    const along = dx * way[0] + dy * way[1];
    return { node, cost: along > 0 ? along + 2 * Math.abs(dx * way[1] + dy * way[0]) : Infinity };
  }).filter((one) => one.cost < Infinity).sort((one, other) => one.cost - other.cost);
  if (costs.length) {
    event.currentTarget.querySelector(`[data-node="${CSS.escape(costs[0].node.id)}"]`)?.focus();
  }
}

const perMinute = (rate) => (rate === null ? UNKNOWN : `${number(rate * 60)} per min`);

function panel(node, topology, known, query, context) {
  const handler = known.handlers.get(node.id);
  const dead = known.dead.get(node.id);
  const readers = topology.edges.filter((edge) => edge.from === node.id && edge.kind === "consumes");
  const lag = (live.snapshot?.lag ?? []).filter((one) => `topic:${one.topic}` === node.id);
  return h("aside", { class: "panel", "aria-label": "Selected node", "data-key": "panel" },
    h("div", { class: "drawer-head" }, h("h2", {}, KINDS[node.kind]),
      h("button", { type: "button", onclick: () =>
        context.go("topology", { q: query.q }, { replace: true }) }, "Close")),
    h("p", {}, h("bdi", {}, node.name)),
    handler ? facts([["State", state(handler.state)], ["Rate", `${number(handler.messages_per_second)} msg/s`],
      ["Group", handler.group], ["In flight", count(handler.in_flight)],
      ["Failed runs", count(handler.counters.failed_runs)],
      ["Retries", perMinute(known.retries(handler))], ["Details", handlerLink(handler.name)]]) : null,
    node.kind === "topic" ? facts([
      ...lag.map((one) => [`Group ${one.group}`, `${count(one.waiting)} waiting, oldest ${duration(one.oldest_seconds)}`]),
      ["Read by", readers.length ? readers.map((edge) => h("div", {}, handlerLink(edge.to.slice(8)))) : "no handler here"],
    ]) : null,
    dead ? facts([["Waiting", count(dead.waiting)], ["Received", count(dead.received)],
      ["Replayed", count(dead.replayed)], ["Purged", count(dead.purged)],
      ["Details", link("dead-letters", "Show them", { topic: dead.topic })]]) : null);
}

function edgesTable(topology, known) {
  const names = new Map(topology.nodes.map((node) => [node.id, node]));
  const verb = { consumes: "is read by", publishes: "publishes to", dead_letters: "dead letters go to" };
  return table("What leads where", [{ name: "From" }, { name: "Relation" }, { name: "To" }, { name: "msg/s", number: true }],
    topology.edges.map((edge) => ({ key: `${edge.from}>${edge.to}`, cells: [
      names.get(edge.from).name, verb[edge.kind], names.get(edge.to).name, number(known.rate(edge)),
    ] })));
}
