// What every walk through the dashboard in a real browser has in common: how a visitor signs in, and what is checked of
// whatever is in view.
//
// It reads OUTFEED_URL and OUTFEED_API_KEY; OUTFEED_CHROMIUM names another browser than /usr/bin/chromium.

import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { chromium } from "playwright-core";

export const url = process.env.OUTFEED_URL?.replace(/\/$/, "");
const apiKey = process.env.OUTFEED_API_KEY;
const patienceMs = 20_000;

/** What is wrong, one sentence each. */
export const problems = [];

if (!url || !apiKey) {
  console.error("Set OUTFEED_URL and OUTFEED_API_KEY to a running control plane and one of its API keys.");
  process.exit(2);
}

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let shots;

/** How wide the window of a visitor is, and which colours it prefers. */
export const views = {
  "wide-light": { viewport: { width: 1280, height: 900 }, colorScheme: "light" },
  "wide-dark": { viewport: { width: 1280, height: 900 }, colorScheme: "dark" },
  "narrow-light": { viewport: { width: 390, height: 844 }, colorScheme: "light" },
  "narrow-dark": { viewport: { width: 390, height: 844 }, colorScheme: "dark" },
};

/** Has one visitor for each of the named views do the same, and ends the program with what they found. */
export async function walks(screenshots, names, steps) {
  shots = screenshots;
  if (shots) await mkdir(shots, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.OUTFEED_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  });
  try {
    for (const name of names) await walk(browser, name, steps);
  } finally {
    await browser.close();
  }
  for (const problem of problems) console.error(`FAIL ${problem}`);
  if (problems.length > 0) process.exit(1);
  console.log("The dashboard shows what it should.");
}

async function walk(browser, name, steps) {
  const context = await browser.newContext({ ...views[name], ignoreHTTPSErrors: true });
  const page = await context.newPage();
  page.setDefaultTimeout(patienceMs);
  const visit = { name, page, expectRefusal: true };
  watch(visit);
  try {
    await steps(visit);
  } catch (error) {
    problems.push(`${name}: the walk ended early: ${error.message}`);
    await shoot(visit, "failed").catch(() => undefined);
  } finally {
    await context.close();
  }
}

/** Errors in the console fail the walk, except that the browser itself logs the refusal that leads to the sign-in. */
function watch(visit) {
  visit.page.on("pageerror", (error) => problems.push(`${visit.name}: ${error.message}`));
  visit.page.on("console", (message) => {
    if (message.type() !== "error") return;
    if (visit.expectRefusal && /status of 401/.test(message.text())) return;
    problems.push(`${visit.name}: console: ${message.text()} (${message.location().url})`);
  });
}

/** Signs in, as soon as the page is there. */
export async function signIn(visit) {
  const { page } = visit;
  await page.getByLabel("API key").fill(apiKey);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator('[data-live="live"]').waitFor();
  visit.expectRefusal = false;
}

/** Checks what is in view for accessibility and width, and takes its picture. */
export async function look(visit, what) {
  const { page, name } = visit;
  await page.evaluate(axe);
  const result = await page.evaluate(() =>
    window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }),
  );
  for (const violation of result.violations) {
    const where = violation.nodes.map((node) => node.target.join(" ")).slice(0, 3);
    problems.push(`${name}/${what}: ${violation.id}: ${violation.help} at ${where.join("; ")}`);
  }
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (wide > 0) problems.push(`${name}/${what}: the page is ${wide} px wider than its window`);
  await shoot(visit, what);
}

async function shoot({ page, name }, what) {
  if (shots) await page.screenshot({ path: path.join(shots, `${name}-${what}.png`), fullPage: true });
}
