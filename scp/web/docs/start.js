// Shows the API's description, and tries it as whoever is signed in: changes carry the word that proves that our page asks.
let word = null;

const askForWord = () =>
  fetch("/api/v1/me", { cache: "no-store" })
    .then((answer) => (answer.ok ? answer.json() : null))
    .then((me) => (word = me && me.csrf));

window.addEventListener("load", () => {
  askForWord().finally(() =>
    window.SwaggerUIBundle({
      url: "/openapi.json",
      dom_id: "#docs",
      deepLinking: true,
      validatorUrl: null,
      docExpansion: "list",
      defaultModelsExpandDepth: 0,
      requestInterceptor: (request) => {
        if (word && !request.headers.Authorization) request.headers["X-CSRF-Token"] = word;
        return request;
      },
    }),
  );
});
