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
      const sizes = new Map<string, number>();
      const firstLoad = new Set<string>();
      for (const output of Object.values(bundle)) {
        if (!/\.(js|css)$/.test(output.fileName)) continue;
        const packed = gzipSync(output.type === "chunk" ? output.code : output.source, { level: 9 });
        this.emitFile({ type: "asset", fileName: `${output.fileName}.gz`, source: packed });
        sizes.set(output.fileName, packed.byteLength);
        if (output.type !== "chunk" || !output.isEntry) continue;
        for (const name of [output.fileName, ...output.imports]) firstLoad.add(name);
      }
      const entry = [...firstLoad].reduce((sum, name) => sum + (sizes.get(name) ?? 0), 0);
      if (entry > entryLimit) {
        this.error(`The first load is ${entry} bytes compressed, more than ${entryLimit}: load something lazily.`);
      }
      for (const [name, size] of [...sizes].sort((a, b) => b[1] - a[1])) this.info(`${kilobytes(size)}  ${name}`);
      this.info(`${kilobytes(entry)}  scripts of the first load`);
    },
  };
}

function kilobytes(size: number): string {
  return `${(size / 1000).toFixed(1).padStart(7)} kB gz`;
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
