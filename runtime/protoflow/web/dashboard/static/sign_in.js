// The entrance: a token opens a session; scripts never see it again.

import { post } from "./api.js";
import { h } from "./dom.js";

let error = "";

export function signIn(session, entered, update) {
  if (!session.tokens) {
    return [h("h1", {}, "Protoflow"),
      h("p", { role: "alert" }, "Without a token the dashboard is for the machine that serves it. " +
        "Set http_token, and sign in with it.")];
  }
  const submit = async (event) => {
    event.preventDefault();
    const token = event.currentTarget.elements.token.value;
    try {
      const found = await post("api/v1/login", { token });
      error = "";
      entered(found);
    } catch (failed) {
      error = failed.message;
      update();
    }
  };
  return [h("h1", {}, "Protoflow"),
    h("form", { onsubmit: submit },
      h("label", { for: "token" }, "Token (http_token or http_read_token)"),
      h("input", { id: "token", name: "token", type: "password", autocomplete: "current-password",
        required: true, "aria-describedby": "why" }),
      h("button", { type: "submit", class: "primary" }, "Sign in"),
      h("p", { id: "why", role: "alert", class: "bad-text" }, error))];
}
