// Builds a page that stands apart from the desk, named by --mode: `door` signs in and is served to everybody, `operate` is the operators'.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

export default defineConfig(({ mode: page }) => ({
  root: fileURLToPath(new URL(page, import.meta.url)),
  publicDir: fileURLToPath(new URL("public", import.meta.url)),
  base: `/static/app/${page}/`,
  build: {
    outDir: fileURLToPath(new URL(`../apps/_default/static/app/${page}`, import.meta.url)),
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
}));
