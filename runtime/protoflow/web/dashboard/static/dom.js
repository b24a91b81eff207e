// Elements from data, and changes of the page that keep what has not changed: focus, scroll
// positions and texts that are selected survive an update.

const SVG = "http://www.w3.org/2000/svg";

// Characters that reverse, hide or break a text: they are shown by their numbers.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** A text of a stranger as it can be shown: nothing in it is invisible or changes direction. */
function visible(text) {
  return String(text).replace(UNSEEN, (found) => {
    const code = found.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    return `\u27e8U+${code}\u27e9`;
  });
}

/** An element. Children are nodes, texts, arrays of them, or nothing. Texts stay texts. */
export function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function s(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  element.events = {};
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) {
      element.events[key] = value;
      element[key] = value;
    } else if (key === "value" || key === "checked" || key === "disabled") {
      element[key] = value;
    } else if (key === "chart") {
      element.chart = value;
    } else {
      element.setAttribute(key, value === true ? "" : value);
    }
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
}

/** Makes the children of an element those that are given. */
export function show(element, ...children) {
  const wanted = document.createElement("div");
  append(wanted, children);
  morphChildren(element, wanted);
}

function morph(old, wanted) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // Whether details are open is the reader's choice.
    if (!wanted.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const name of Object.keys(old.events ?? {})) {
    if (!(name in (wanted.events ?? {}))) old[name] = null;
  }
  for (const [name, value] of Object.entries(wanted.events ?? {})) old[name] = value;
  old.events = wanted.events;
  if (wanted.chart) {
    old.chart = wanted.chart;
    return;
  }
  morphChildren(old, wanted);
  // What somebody types is not overwritten.
  if (old !== document.activeElement && "value" in wanted && old.value !== wanted.value) {
    if (["INPUT", "SELECT", "TEXTAREA", "PROGRESS"].includes(old.nodeName)) old.value = wanted.value;
  }
  if ("checked" in wanted && old.checked !== wanted.checked) old.checked = wanted.checked;
  if ("disabled" in wanted && old.disabled !== wanted.disabled) old.disabled = wanted.disabled;
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
}

function morphChildren(old, wanted) {
  const keyed = new Map();
  for (const child of old.childNodes) {
    const key = keyOf(child);
    if (key !== null) keyed.set(key, child);
  }
  let at = old.firstChild;
  for (const child of [...wanted.childNodes]) {
    const key = keyOf(child);
    let match = null;
    if (key !== null) {
      match = keyed.get(key) ?? null;
      keyed.delete(key);
      if (match && match.nodeName !== child.nodeName) match = null;
    } else if (at && keyOf(at) === null && at.nodeName === child.nodeName) {
      match = at;
    }
    if (!match) {
      old.insertBefore(child, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    morph(match, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** Says something to those who do not see the page. */
export function announce(text) {
  document.getElementById("announcements").textContent = visible(text);
}

/** Copies a text; the button says so. */
export function copyButton(text, label = "Copy") {
  return h("button", {
    type: "button",
    class: "small",
    onclick: async (event) => {
      const button = event.currentTarget;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Select and copy it";
      }
      announce(button.textContent);
      setTimeout(() => (button.textContent = label), 2000);
    },
  }, label);
}
