// Builds the front end into hashed files in py4web's static folder. Everything is served from our own origin.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

export default defineConfig({
  base: "/static/app/",
  resolve: { alias: { tapeline: fileURLToPath(new URL("../../wds/static/tapeline.js", import.meta.url)) } },
  build: {
    outDir: "../apps/_default/static/app",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // the content security policy allows no data: fonts or scripts
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 600,
  },
});
