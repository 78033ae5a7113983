import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import type { Plugin, Rolldown } from "vite";
import { defineConfig } from "vitest/config";

// Writes a gzipped twin of each text asset, which the Go handler serves to browsers that take it, and fails the build
// when the page's first load grows past what a plant's slow uplink should carry.
function compressed(entryLimit: number): Plugin {
  return {
    name: "compressed",
    apply: "build",
    enforce: "post",
    // Not earlier: until then vite still puts the names of preloaded files into the scripts.
    writeBundle(options, bundle) {
      const texts = Object.values(bundle).filter((output) => /\.(js|css)$/.test(output.fileName));
      const sizes = new Map(
        texts.map((output) => {
          const source = gzipSync(output.type === "chunk" ? output.code : output.source, { level: 9 });
          writeFileSync(join(options.dir ?? "", `${output.fileName}.gz`), source);
          return [output.fileName, source.byteLength] as const;
        }),
      );
      for (const [name, size] of [...sizes].sort((a, b) => b[1] - a[1])) this.info(`${kilobytes(size)}  ${name}`);
      const first = firstLoad(texts).reduce((sum, name) => sum + (sizes.get(name) ?? 0), 0);
      this.info(`${kilobytes(first)}  scripts of the first load`);
      if (first > entryLimit) {
        this.error(`The first load is ${first} bytes compressed, more than ${entryLimit}: load something lazily.`);
      }
    },
  };
}

/** The scripts that the page needs before it shows anything: the entries and what they import at once. */
function firstLoad(outputs: Rolldown.OutputBundle[string][]): string[] {
  const entries = outputs.filter((output) => output.type === "chunk").filter((chunk) => chunk.isEntry);
  return [...new Set(entries.flatMap((chunk) => [chunk.fileName, ...chunk.imports]))];
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
