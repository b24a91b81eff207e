// The contract: messages with their fields and rules, operations, channels; a form to publish.

import { Resource, address, get, post } from "./api.js";
import { h } from "./dom.js";
import { UNKNOWN, count } from "./format.js";
import { failure, handlerLink, messageLink, section, shown, table } from "./parts.js";

export function open(context) {
  const contract = new Resource(() => get("api/v1/contract"), context.update);
  const document_ = new Resource(() => get("api/v1/asyncapi"), context.update);
  const form = { type: null, text: "", key: "", error: null, published: [] };
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
    section("Messages", contract.messages.map((one) => message(one, asyncapi))),
    section("Operations", operations(contract)),
    asyncapi ? section("Channels", channels(asyncapi)) : null,
  ];
}

function message(one, asyncapi) {
  const schema = schemaOf(asyncapi, one);
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
    h("h3", {}, "Example"), h("pre", { tabindex: "0", role: "region", "aria-label": `Example of ${one.type}` }, example(asyncapi, one)));
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

function example(asyncapi, one) {
  const schema = schemaOf(asyncapi, one);
  return JSON.stringify(schema ? sample(asyncapi, schema) : {}, null, 2);
}

const DEPTH = 4;

/** A value that a schema allows; beneath a depth nothing, because types may hold themselves. */
function sample(asyncapi, schema, depth = 0) {
  if (schema.$ref) {
    const name = decodeURIComponent(schema.$ref.split("/").pop());
    const found = asyncapi.components?.schemas?.[name];
    return found && depth < DEPTH ? sample(asyncapi, found, depth + 1) : {};
  }
  if (schema.examples?.length) return schema.examples[0];
  if (schema.const !== undefined) return schema.const;
  if (schema.enum?.length) return schema.enum.at(schema.enum.length > 1 ? 1 : 0);
  const other = schema.oneOf?.[0] ?? schema.anyOf?.[0] ?? schema.allOf?.[0];
  if (other) return sample(asyncapi, other, depth);
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === "object") {
    return Object.fromEntries(Object.entries(schema.properties ?? {})
      .map(([name, each]) => [name, sample(asyncapi, each, depth + 1)]));
  }
  if (type === "array") return schema.items && depth < DEPTH ? [sample(asyncapi, schema.items, depth + 1)] : [];
  if (type === "boolean") return false;
  if (type === "integer" || type === "number") {
    return Math.min(Math.max(schema.minimum ?? 1, (schema.exclusiveMinimum ?? 0) + 1), schema.maximum ?? Infinity);
  }
  if (schema.format === "date-time") return "2026-01-31T12:00:00Z";
  if (/int64|fixed64/.test(schema.format ?? "") || schema.pattern?.includes("[0-9]")) return "1";
  return "text".padEnd(schema.minLength ?? 0, "x").slice(0, schema.maxLength ?? 4);
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
  if (form.type !== chosen.type && asyncapi) {
    form.type = chosen.type;
    form.text = example(asyncapi, chosen);
  }
  const submit = async (event) => {
    event.preventDefault();
    try {
      const { id } = await post("api/v1/publish", { type: chosen.type, message: parsed(form.text),
        ...(form.key ? { key: form.key } : {}) });
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
      form.text = example(asyncapi, able.find((one) => one.type === form.type));
      context.update();
    } }, able.map((one) => h("option", { value: one.type, selected: one === chosen }, one.type)))),
    h("label", {}, "Message, as JSON", h("textarea", { name: "message", rows: "12", spellcheck: "false",
      value: form.text, oninput: (event) => {
        form.text = event.currentTarget.value;
      } })),
    h("label", {}, "Key", h("input", { name: "key", autocomplete: "off", value: form.key,
      placeholder: chosen.partition_key ? `empty: the field ${chosen.partition_key}` : "empty: none",
      oninput: (event) => {
        form.key = event.currentTarget.value;
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
