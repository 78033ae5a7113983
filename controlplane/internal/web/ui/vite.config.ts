import { gzipSync } from "node:zlib";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

// Writes a gzipped twin of each text asset, which the Go handler serves to browsers that take it, and fails the build
// when the page's first load grows past what a plant's slow uplink should carry.
function compressed(entryLimit: number): Plugin {
  return {
    name: "compressed",
    apply: "build",
    enforce: "post",
    generateBundle(_options, bundle) {
      const sizes: [string, number][] = [];
      let entry = 0;
      for (const output of Object.values(bundle)) {
        if (!/\.(js|css)$/.test(output.fileName)) continue;
        const source = output.type === "chunk" ? output.code : output.source;
        const packed = gzipSync(source, { level: 9 });
        this.emitFile({ type: "asset", fileName: `${output.fileName}.gz`, source: packed });
        sizes.push([output.fileName, packed.byteLength]);
        if (output.type === "chunk" && output.isEntry) {
          const firstLoad = [output.fileName, ...output.imports];
          entry = firstLoad.reduce((sum, name) => {
            const chunk = bundle[name];
            return chunk?.type === "chunk" ? sum + gzipSync(chunk.code, { level: 9 }).byteLength : sum;
          }, 0);
        }
      }
      if (entry > entryLimit) {
        this.error(`The first load is ${entry} bytes compressed, more than ${entryLimit}: load something lazily.`);
      }
      sizes.sort((a, b) => b[1] - a[1]);
      for (const [name, bytes] of sizes) this.info(`${(bytes / 1000).toFixed(1).padStart(7)} kB gz  ${name}`);
      this.info(`${(entry / 1000).toFixed(1).padStart(7)} kB gz  scripts of the first load`);
    },
  };
}

export default defineConfig({
  plugins: [react(), tailwindcss(), compressed(150_000)],
  build: {
    outDir: "../dist",
    emptyOutDir: true,
    // Nothing becomes a data: URL, so that the content policy can stay at 'self'.
    assetsInlineLimit: 0,
    reportCompressedSize: false,
  },
  server: { proxy: { "/api": process.env.OUTFEED_URL ?? "http://127.0.0.1:8080" } },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
