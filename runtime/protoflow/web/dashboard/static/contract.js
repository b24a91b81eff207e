// The contract: messages with their fields and rules, operations, channels; a form to publish.

import { Resource, address, get, post } from "./api.js";
import { h } from "./dom.js";
import { UNKNOWN, count } from "./format.js";
import { failure, handlerLink, messageLink, section, shown, table } from "./parts.js";

export function open(context) {
  const contract = new Resource(() => get("api/v1/contract"), context.update);
  const document_ = new Resource(() => get("api/v1/asyncapi"), context.update);
  const form = { type: null, text: "", error: null, published: [] };
  contract.reload();
  document_.reload();
  return {
    title: "Contract",
    view: () => [h("h1", {}, "Contract"),
      shown(contract, (found) => found.messages.length || found.operations.length
        ? view(found, document_.value, form, context)
        : h("p", { class: "empty" }, "No contract loaded. Pass ", h("code", {}, "--contract"), "."))],
  };
}

function view(contract, asyncapi, form, context) {
  return [
    h("p", {}, h("a", { class: "button", download: "asyncapi.json", href: address("api/v1/asyncapi") },
      "Download AsyncAPI")),
    context.session.publish ? section("Publish", publishing(contract, asyncapi, form, context)) : null,
    section("Messages", contract.messages.map((one) => message(one, schemaOf(asyncapi, one)))),
    section("Operations", operations(contract)),
    asyncapi ? section("Channels", channels(asyncapi)) : null,
  ];
}

function message(one, schema) {
  return h("details", { class: "card", "data-key": one.type },
    h("summary", {}, h("strong", {}, one.type), h("span", { class: "note" },
      one.topic ? ` to ${one.topic}` : " without a topic")),
    table(`Fields of ${one.type}`, [{ name: "Field" }, { name: "Type" }, { name: "No.", number: true },
      { name: "Rules", class: "wide" }],
    one.fields.map((field) => ({ cells: [
      h("code", {}, field.name),
      `${field.repeated ? "repeated " : ""}${field.type}`, String(field.number),
      rules(one, field, schema),
    ] })), "It has no fields."),
    one.aliases.length ? h("p", {}, `Also known as ${one.aliases.join(", ")}.`) : null,
    h("h3", {}, "Example"), h("pre", { tabindex: "0", role: "region", "aria-label": `Example of ${one.type}` }, example(one, schema)));
}

function rules(one, field, schema) {
  const found = [];
  if (field.name === one.partition_key) found.push("partition key");
  if (field.sensitive) found.push("sensitive: never shown");
  const shape = schema?.properties?.[field.json_name] ?? {};
  const named = { minLength: "at least %s characters", maxLength: "at most %s characters",
    minimum: "at least %s", maximum: "at most %s", exclusiveMinimum: "more than %s",
    exclusiveMaximum: "less than %s", minItems: "at least %s items", maxItems: "at most %s items",
    pattern: "matches %s", format: "format %s", const: "is %s" };
  for (const [name, words] of Object.entries(named)) {
    if (shape[name] !== undefined && !(name === "format" && /^u?int|^double|^float/.test(shape[name]))) {
      found.push(words.replace("%s", shape[name]));
    }
  }
  if (schema?.required?.includes(field.json_name)) found.push("required");
  return found.join("; ") || UNKNOWN;
}

function schemaOf(asyncapi, one) {
  return asyncapi?.components?.schemas?.[one.proto] ?? null;
}

const ZEROS = { bool: false, string: "", bytes: "", double: 0, float: 0 };

function example(one, schema) {
  const given = schema?.examples?.[0];
  if (given) return JSON.stringify(given, null, 2);
  const value = {};
  for (const field of one.fields) {
    const zero = field.type in ZEROS ? ZEROS[field.type]
      : /64$/.test(field.type) ? "0" : /32$/.test(field.type) ? 0 : {};
    value[field.json_name] = field.repeated ? [] : zero;
  }
  return JSON.stringify(value, null, 2);
}

function operations(contract) {
  return table("Operations", [{ name: "Handler" }, { name: "Takes" }, { name: "From" }, { name: "Group" },
    { name: "Publishes" }, { name: "To" }],
  contract.operations.map((one) => ({ key: one.name, cells: [
    handlerLink(one.name), one.types.join(", ") || "every type", one.topic, one.group,
    one.published_type ?? UNKNOWN, one.publishes ?? UNKNOWN,
  ] })), "The contract has no method that consumes.");
}

function channels(asyncapi) {
  const rows = Object.entries(asyncapi.channels ?? {}).map(([key, one]) => ({ key, cells: [
    one.address ?? key, count(Object.keys(one.messages ?? {}).length),
    one.bindings ? h("pre", { tabindex: "0", role: "region", "aria-label": `Bindings of ${one.address ?? key}` },
      JSON.stringify(one.bindings, null, 2)) : UNKNOWN,
  ] }));
  return table("Channels", [{ name: "Address" }, { name: "Messages", number: true },
    { name: "Bindings", class: "wide" }], rows, "No channels.");
}

function publishing(contract, asyncapi, form, context) {
  const able = contract.messages.filter((one) => one.topic);
  const chosen = able.find((one) => one.type === form.type) ?? able[0];
  if (!chosen) return h("p", { class: "empty" }, "No message of the contract has a topic.");
  if (form.type !== chosen.type) {
    form.type = chosen.type;
    form.text = example(chosen, schemaOf(asyncapi, chosen));
  }
  const submit = async (event) => {
    event.preventDefault();
    try {
      const { id } = await post("api/v1/publish", { type: form.type, message: parsed(form.text) });
      form.published = [id, ...form.published].slice(0, 5);
      form.error = null;
    } catch (error) {
      form.error = error;
    }
    context.update();
  };
  return h("form", { class: "publish", onsubmit: submit },
    h("label", {}, "Type", h("select", { name: "type", value: form.type, onchange: (event) => {
      form.type = event.currentTarget.value;
      const next = able.find((one) => one.type === form.type);
      form.text = example(next, schemaOf(asyncapi, next));
      context.update();
    } }, able.map((one) => h("option", { value: one.type, selected: one === chosen }, one.type)))),
    h("label", {}, "Message, as JSON", h("textarea", { name: "message", rows: "8", spellcheck: "false",
      value: form.text, oninput: (event) => {
        form.text = event.currentTarget.value;
      } })),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, `Publish to ${chosen.topic}`)),
    form.error ? failure(form.error) : null,
    form.published.length ? h("p", { role: "status" }, "Published: ",
      form.published.map((id, index) => [index ? ", " : "", messageLink(id)])) : null);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`The message is not JSON: ${error.message}`);
  }
}
