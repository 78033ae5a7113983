// Walks a real browser through the dashboard of a running control plane and checks what a person would see.
//
//   OUTFEED_URL=https://127.0.0.1:8443 OUTFEED_API_KEY=ofk_… npm run e2e -- [screenshot directory]
//
// It wants at least one connected agent, one flow and one insight with a number, and waits a while for the first of
// them: the demo may have been started just now. OUTFEED_CHROMIUM names another browser than /usr/bin/chromium. It ends
// with status 1 and a list of what is wrong.

import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { chromium } from "playwright-core";

const url = process.env.OUTFEED_URL?.replace(/\/$/, "");
const apiKey = process.env.OUTFEED_API_KEY;
const shots = process.argv[2] ?? process.env.OUTFEED_SCREENSHOTS;
const patienceMs = 20_000;
/** A flow that runs by the minute has its first insight and its first run after two. */
const firstDataMs = 150_000;
/** How many flows and how many insights are looked at. */
const mostOfAKind = 5;

if (!url || !apiKey) {
  console.error("Set OUTFEED_URL and OUTFEED_API_KEY to a running control plane and one of its API keys.");
  process.exit(2);
}
if (shots) await mkdir(shots, { recursive: true });

const problems = [];
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({
  executablePath: process.env.OUTFEED_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
try {
  await walk("wide-light", { viewport: { width: 1280, height: 900 }, colorScheme: "light" });
  await walk("narrow-dark", { viewport: { width: 390, height: 844 }, colorScheme: "dark" });
} finally {
  await browser.close();
}
for (const problem of problems) console.error(`FAIL ${problem}`);
if (problems.length > 0) process.exit(1);
console.log("The dashboard shows what it should.");

/** One visitor: signs in and looks at every page. */
async function walk(name, view) {
  const context = await browser.newContext({ ...view, ignoreHTTPSErrors: true });
  const page = await context.newPage();
  page.setDefaultTimeout(patienceMs);
  const visit = { name, page, expectRefusal: true };
  watch(visit);
  try {
    await signIn(visit);
    visit.expectRefusal = false;
    await overview(visit);
    await agents(visit);
    await flows(visit);
    await runs(visit);
    await insights(visit);
    await connections(visit);
    await signOut(visit);
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

async function signIn(visit) {
  const { page } = visit;
  await page.goto(`${url}/`);
  await page.getByLabel("API key").fill("ofk_this-is-no-key");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  await look(visit, "sign-in");
  await page.getByLabel("API key").fill(apiKey);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator('[data-live="live"]').waitFor();
}

async function overview(visit) {
  const { page } = visit;
  await page.getByRole("heading", { name: "Overview", level: 1 }).waitFor();
  await page.getByRole("list", { name: "Latest insights" }).getByRole("listitem").first().waitFor({
    timeout: firstDataMs,
  });
  await look(visit, "overview");
}

async function agents(visit) {
  const { page } = visit;
  await go(visit, "Agents");
  await rows(visit, "Installed agents");
  await page.getByText("Connected", { exact: true }).first().waitFor();
  await look(visit, "agents");
  await page.getByRole("button", { name: "Add an agent" }).click();
  await page.getByRole("button", { name: "Make a token" }).click();
  await page.getByText("outfeed-agent enroll --url").waitFor();
  await page.getByText("Windows", { exact: true }).click();
  await page.getByText("outfeed-agent.exe enroll --url").waitFor();
  await look(visit, "agent-add");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page
    .getByRole("row", { name: /Connected/ })
    .getByRole("link")
    .first()
    .click();
  await page.getByRole("heading", { name: "Outbox" }).waitFor();
  await look(visit, "agent");
}

async function flows(visit) {
  const { page } = visit;
  await go(visit, "Flows");
  await rows(visit, "All flows");
  await look(visit, "flows");
  const links = page.getByRole("region", { name: "All flows" }).getByRole("link");
  const names = await links.allTextContents();
  for (const name of names.slice(0, mostOfAKind)) {
    await go(visit, "Flows");
    await links.getByText(name, { exact: true }).click();
    await page.getByRole("heading", { name, level: 1, exact: true }).waitFor();
    await page.getByRole("region", { name: "Definition", exact: true }).getByText("flow").first().waitFor();
    await page.getByRole("region", { name: "Steps" }).getByRole("img").first().waitFor();
    await rows(visit, "What leaves the plant");
    await look(visit, `flow-${name}`);
  }
}

async function runs(visit) {
  const { page } = visit;
  await go(visit, "Runs");
  await rows(visit, "Runs");
  await look(visit, "runs");
  await page.getByRole("region", { name: "Runs" }).getByRole("link").first().click();
  await page.getByRole("heading", { name: "Rows per step" }).waitFor();
  await look(visit, "run");
}

/** Looks at the insights there are: each shows a plot or says why not, and at least one is drawn. */
async function insights(visit) {
  const { page } = visit;
  await go(visit, "Insights");
  await page.getByText("1h", { exact: true }).click();
  const choice = page.getByRole("combobox", { name: "Insight" });
  await choice.waitFor();
  const names = await choice.locator("option").evaluateAll((options) => options.map((option) => option.value));
  let drawn = 0;
  for (const name of names.slice(0, mostOfAKind)) {
    await choice.selectOption(name);
    const plot = page.locator(`[data-insight="${name}"] canvas`);
    const words = page.getByText(/^(This insight has no numbers to draw|Nothing in the last 1h)$/);
    await plot.or(words).first().waitFor();
    if (await plot.isVisible()) {
      await page.waitForFunction(isDrawn, name);
      drawn += 1;
      const box = await plot.boundingBox();
      if (box) await page.mouse.move(box.x + box.width - 30, box.y + box.height / 2);
    }
    await look(visit, `insights-${name}`);
  }
  if (drawn === 0) problems.push(`${visit.name}: none of the insights ${names.join(", ")} has a plot`);
}

async function connections(visit) {
  await go(visit, "Connections");
  await rows(visit, "Plant systems");
  await look(visit, "connections");
}

async function signOut(visit) {
  const { page } = visit;
  visit.expectRefusal = true;
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("API key").waitFor();
}

/** In the page: whether the plot has lines or dots in at least one colour, and not just its grid. */
function isDrawn(name) {
  const canvas = document.querySelector(`[data-insight="${name}"] canvas`);
  const pixels = canvas?.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data;
  if (!pixels) return false;
  let coloured = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    const spread =
      Math.max(pixels[i], pixels[i + 1], pixels[i + 2]) - Math.min(pixels[i], pixels[i + 1], pixels[i + 2]);
    if (pixels[i + 3] > 128 && spread > 60) coloured += 1;
  }
  return coloured > 10;
}

async function go({ page }, place) {
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: place }).click();
  await page.getByRole("heading", { name: place, level: 1 }).waitFor();
}

/** Waits until a table has rows. */
async function rows({ page }, table) {
  const first = page.getByRole("region", { name: table, exact: true }).locator("tbody tr").first();
  await first.waitFor({ timeout: firstDataMs });
}

/** Checks what is in view for accessibility and width, and takes its picture. */
async function look(visit, what) {
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
