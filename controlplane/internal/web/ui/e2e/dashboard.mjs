// Walks a real browser through the dashboard of a running control plane and checks what a person would see.
//
//   OUTFEED_URL=https://127.0.0.1:8443 OUTFEED_API_KEY=ofk_… npm run e2e -- [screenshot directory]
//
// It wants at least one connected agent, one flow and one insight with a number, and waits a while for the first of
// them: the demo may have been started just now. OUTFEED_CHROMIUM names another browser than /usr/bin/chromium. It ends
// with status 1 and a list of what is wrong.

import { look, problems, signIn, url, walks } from "./visit.mjs";

/** A flow that runs by the minute has its first insight and its first run after two. */
const firstDataMs = 150_000;
/** How many flows and how many insights are looked at. */
const mostOfAKind = 5;

/** One visitor: signs in and looks at every page. */
await walks(process.argv[2] ?? process.env.OUTFEED_SCREENSHOTS, ["wide-light", "narrow-dark"], async (visit) => {
  await enter(visit);
  await overview(visit);
  await agents(visit);
  await flows(visit);
  await runs(visit);
  await insights(visit);
  await connections(visit);
  await signOut(visit);
});

async function enter(visit) {
  const { page } = visit;
  await page.goto(`${url}/`);
  await page.getByLabel("API key").fill("ofk_this-is-no-key");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  await look(visit, "sign-in");
  await signIn(visit);
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
