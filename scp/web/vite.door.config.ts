// Builds the page for signing in, apart from the desk: it is served to everybody, the desk only to who is signed in.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

export default defineConfig({
  root: fileURLToPath(new URL("door", import.meta.url)),
  publicDir: fileURLToPath(new URL("public", import.meta.url)),
  base: "/static/app/door/",
  build: {
    outDir: fileURLToPath(new URL("../apps/_default/static/app/door", import.meta.url)),
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
