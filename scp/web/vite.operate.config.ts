// Builds the operators' pages, apart from the desk: they are loaded by who opens them.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

export default defineConfig({
  root: fileURLToPath(new URL("operate", import.meta.url)),
  publicDir: fileURLToPath(new URL("public", import.meta.url)),
  base: "/static/app/operate/",
  build: {
    outDir: fileURLToPath(new URL("../apps/_default/static/app/operate", import.meta.url)),
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
