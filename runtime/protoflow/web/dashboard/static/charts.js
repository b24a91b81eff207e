// Charts of an hour, by uPlot. A chart is an element with data; it is drawn when it is in the page.

import uPlot from "./uPlot.esm.js";
import { h } from "./dom.js";

const drawn = new Map();
const SECONDS = 3600;
const AXIS = 22;

/** A chart of the last hour: points are [seconds, value or null], the oldest first. */
export function hourChart(key, points, { label, format, bars = false }) {
  const values = points.map(([, value]) => value).filter((value) => value !== null);
  const range = values.length
    ? `from ${format(Math.min(...values))} to ${format(Math.max(...values))}`
    : "nothing recorded";
  return h("div", {
    class: "chart", "data-key": `chart:${key}`, role: "img",
    "aria-label": `${label}, the last 60 minutes: ${range}`,
    chart: { points, format, bars },
  });
}

/** Draws the charts of the page, and forgets those that are gone. */
export function drawCharts() {
  for (const [element, plot] of drawn) {
    if (!element.isConnected) {
      plot.plot.destroy();
      drawn.delete(element);
    }
  }
  for (const element of document.querySelectorAll(".chart")) draw(element);
}

/** Draws all again: the colours or the width changed. */
export function redrawCharts() {
  for (const plot of drawn.values()) plot.plot.destroy();
  drawn.clear();
  drawCharts();
}

function draw(element) {
  const { points, bars } = element.chart;
  const now = Date.now() / 1000;
  const data = [points.map(([at]) => at), points.map(([, value]) => value)];
  const text = JSON.stringify(points);
  let one = drawn.get(element);
  if (one && one.width !== element.clientWidth) {
    one.plot.destroy();
    one = null;
  }
  if (!one) {
    one = { plot: made(element, data, bars), text: "", width: element.clientWidth };
    drawn.set(element, one);
  }
  if (one.text !== text || now - one.at > 10) {
    one.text = text;
    one.at = now;
    one.plot.setData(data, false);
    one.plot.setScale("x", { min: now - SECONDS, max: now });
  }
}

/** The places of values without neighbours, which no line shows. */
function lonely(plot) {
  const values = plot.data[1];
  const there = (index) => values[index] !== null && values[index] !== undefined;
  return [...values.keys()].filter((index) => there(index) && !there(index - 1) && !there(index + 1));
}

function made(element, data, bars) {
  const style = getComputedStyle(element);
  const [line, grid] = [style.color, style.borderTopColor];
  // Canvases know no colour with a variable part: the area is the line, and nearly transparent.
  const area = line.replace(/^rgb\(/, "rgba(").replace(/\)$/, ", 0.12)");
  const narrow = element.clientWidth < 220;
  const options = {
    width: Math.max(80, element.clientWidth),
    height: element.clientHeight || 96,
    padding: [4, 4, 0, 4],
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: true, auto: false, range: (_plot, min, max) => [min, max] },
      y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.1 : 1] },
    },
    axes: [
      {
        stroke: grid, size: AXIS, grid: { show: false }, ticks: { show: false },
        font: "11px system-ui", gap: 2,
        splits: (_plot, _axis, min, max) => narrow ? [max - 2400, max - 300]
          : [max - 3300, max - 1800, max - 150],
        values: () => narrow ? ["\u221240 min", "now"] : ["\u221260 min", "\u221230", "now"],
      },
      {
        stroke: grid, size: 40, font: "11px system-ui", gap: 4, ticks: { show: false },
        grid: { stroke: grid, width: 0.3 },
        splits: (_plot, _axis, _min, max) => [0, max / 1.1],
        values: (_plot, splits) => splits.map((value) => element.chart.format(value)),
      },
    ],
    series: [
      {},
      {
        stroke: line, width: 1.5, spanGaps: false, points: { show: true, size: 5, fill: line, filter: lonely },
        fill: bars ? line : area,
        paths: bars ? uPlot.paths.bars({ size: [0.8, 12] }) : uPlot.paths.linear(),
      },
    ],
  };
  return new uPlot(options, data, element);
}
