// Where the nodes of the topology stand: columns from left to right, dead letters beneath.

export const WIDTH = 190;
export const HEIGHT = 46;
const GAP_X = 76;
const GAP_Y = 26;

/** Places nodes ({id, kind, name}) that edges ({from, to, kind}) connect; returns the layout. */
export function placed(nodes, edges) {
  const flow = edges.filter((edge) => edge.kind !== "dead_letters");
  const column = columns(nodes, flow);
  const dead = nodes.filter((node) => node.kind === "dead_letters");
  const rows = new Map();
  for (const node of nodes) {
    if (node.kind === "dead_letters") continue;
    const at = column.get(node.id);
    rows.set(at, [...(rows.get(at) ?? []), node]);
  }
  const places = new Map();
  const order = new Map();
  for (const at of [...rows.keys()].sort((one, other) => one - other)) {
    // Next to what leads there, so that few edges cross.
    const sorted = [...rows.get(at)].sort((one, other) => above(one) - above(other) || (one.id < other.id ? -1 : 1));
    sorted.forEach((node, index) => {
      order.set(node.id, index);
      places.set(node.id, { x: at * (WIDTH + GAP_X), y: index * (HEIGHT + GAP_Y) });
    });
  }
  function above(node) {
    const sources = flow.filter((edge) => edge.to === node.id && order.has(edge.from));
    if (!sources.length) return 0;
    return sources.reduce((sum, edge) => sum + order.get(edge.from), 0) / sources.length;
  }
  const lowest = Math.max(0, ...[...places.values()].map((place) => place.y + HEIGHT));
  const taken = new Map();
  for (const node of dead) {
    const source = edges.find((edge) => edge.to === node.id);
    const x = places.get(source?.from)?.x ?? 0;
    const index = taken.get(x) ?? 0;
    taken.set(x, index + 1);
    places.set(node.id, { x, y: lowest + 46 + index * (HEIGHT + GAP_Y / 2) });
  }
  const all = [...places.values()];
  return {
    places,
    width: Math.max(WIDTH, ...all.map((place) => place.x + WIDTH)),
    height: Math.max(HEIGHT, ...all.map((place) => place.y + HEIGHT)),
  };
}

/** The longest way to each node, circles cut. */
function columns(nodes, edges) {
  const column = new Map(nodes.map((node) => [node.id, 0]));
  for (let round = 0; round < nodes.length; round += 1) {
    let moved = false;
    for (const { from, to } of edges) {
      const wanted = column.get(from) + 1;
      if (column.get(to) < wanted && wanted <= nodes.length) {
        column.set(to, wanted);
        moved = true;
      }
    }
    if (!moved) return column;
  }
  return circular(nodes, edges);
}

function circular(nodes, edges) {
  const column = new Map();
  const visit = (id, depth) => {
    if (column.has(id)) return;
    column.set(id, depth);
    for (const edge of edges) if (edge.from === id) visit(edge.to, depth + 1);
  };
  const entered = new Set(edges.map((edge) => edge.to));
  for (const node of nodes) if (!entered.has(node.id)) visit(node.id, 0);
  for (const node of nodes) visit(node.id, 0);
  return column;
}
