// Numbers and times as people read them. What is unknown is a dash, never 0.

import { h } from "./dom.js";

export const UNKNOWN = "\u2014";

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** A count: 12,030. */
export const count = (value) => (known(value) ? WHOLE.format(value) : UNKNOWN);

/** A number with three digits that count. */
export function number(value) {
  if (!known(value)) return UNKNOWN;
  if (value === 0) return "0";
  if (Math.abs(value) >= 100) return WHOLE.format(value);
  return String(Number(value.toPrecision(value < 0.1 ? 1 : 2)));
}

/** How many there are of something: 1 message, 2 messages. */
export const plural = (value, one, many = `${one}s`) =>
  `${count(value)} ${value === 1 ? one : many}`;

export const percent = (value) => (known(value) ? `${number(value)}\u202f%` : UNKNOWN);

/** A span of seconds: ms below 1 s, else s, min or h. */
export function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds === 0) return "0\u202fs";
  if (seconds < 1) return `${number(seconds * 1000)}\u202fms`;
  if (seconds < 120) return `${number(seconds)}\u202fs`;
  if (seconds < 7200) return `${number(seconds / 60)}\u202fmin`;
  return `${number(seconds / 3600)}\u202fh`;
}

/** Milliseconds of seconds, for columns in ms. */
export const millis = (seconds) => (known(seconds) ? number(seconds * 1000) : UNKNOWN);

export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  if (value < 1024) return `${value} bytes`;
  if (value < 1024 * 1024) return `${number(value / 1024)}\u202fKiB`;
  return `${number(value / 1024 / 1024)}\u202fMiB`;
}

const two = (value) => String(value).padStart(2, "0");

/** The time of day. */
export function clock(at) {
  const date = new Date(at);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Date and time of day, of this browser's zone. */
export function absolute(at) {
  const date = new Date(at);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${clock(at)}`;
}

const timeOf = (given) => {
  const number = Number(given);
  return new Date(given !== "" && Number.isFinite(number) ? number * 1000 : given);
};

/** A time as an address has it, in UTC; null: it is none. */
export function moment(given) {
  const date = timeOf(given ?? "");
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

/** A time of an address as a field for times takes it; null: it is none. */
export function written(given) {
  const date = timeOf(given ?? "");
  return Number.isNaN(date.getTime()) ? null : absolute(date).replace(" ", "T");
}

export function ago(at, now = Date.now()) {
  const seconds = Math.max(0, (now - new Date(at)) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

/** A time: relative, and absolute where the pointer or the focus is. */
export function when(at) {
  if (!at || Number.isNaN(new Date(at).getTime())) return UNKNOWN;
  return h("time", { datetime: at, tabindex: "0", class: "when" },
    ago(at), h("span", { class: "absolute" }, absolute(at)));
}

const SHOWN = 2000;

/** A long text: its beginning, the rest on demand. Written from left to right in any case. */
export function text(value, limit = SHOWN) {
  if (value === null || value === undefined || value === "") return UNKNOWN;
  const whole = String(value);
  if (whole.length <= limit) return h("bdi", {}, whole);
  return h("details", { class: "long" },
    h("summary", {}, h("bdi", {}, whole.slice(0, limit)),
      h("span", { class: "more" }, ` \u2026 ${count(whole.length - limit)} characters more`)),
    h("bdi", {}, whole.slice(limit, 200000)));
}

/** The last part of a dotted name, the whole of it where the pointer is. */
export function shortName(name) {
  const parts = String(name).split(".");
  return parts.length > 2 ? parts.slice(-2).join(".") : name;
}
