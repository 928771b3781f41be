// Shows the description of the loaded model. Where the service wants a key, asks for one first and
// sends it along from then on; it is kept in this page alone.
"use strict";

let key = "";

function withKey(headers) {
  return key ? Object.assign({}, headers, { Authorization: `Bearer ${key}` }) : headers;
}

async function start() {
  let answer = await fetch("openapi.json");
  while (answer.status === 401) {
    key = window.prompt("This service needs an API key:") || "";
    if (!key) return;
    answer = await fetch("openapi.json", { headers: withKey({}) });
  }
  SwaggerUIBundle({
    spec: await answer.json(),
    dom_id: "#swagger-ui",
    deepLinking: true,
    tryItOutEnabled: true,
    requestInterceptor: (request) => {
      request.headers = withKey(request.headers);
      return request;
    },
  });
}

start();
