// Looks at the page of one agent, and at the list, as a person would: in a wide and a narrow window, light and dark.
//
//   OUTFEED_URL=https://127.0.0.1:8443 OUTFEED_API_KEY=ofk_… npm run e2e:agent -- AGENT DIRECTORY TEXT…
//
// OUTFEED_VIEWS chooses among wide-light, wide-dark, narrow-light and narrow-dark. Each TEXT must be on the agent's page. Pictures go to the directory. It ends with status 1 and a list of what is wrong.

import { look, problems, signIn, url, views, walks } from "./visit.mjs";

const [agent, directory, ...texts] = process.argv.slice(2);
if (!agent || !directory) {
  console.error("Say which agent, and where the pictures go.");
  process.exit(2);
}

const chosen = process.env.OUTFEED_VIEWS ? process.env.OUTFEED_VIEWS.split(",") : Object.keys(views);

await walks(directory, chosen, async (visit) => {
  const { page } = visit;
  await page.goto(`${url}/agents/${encodeURIComponent(agent)}`);
  await signIn(visit);
  await page.goto(`${url}/agents/${encodeURIComponent(agent)}`);
  await page.getByRole("heading", { name: "Machine" }).waitFor();
  for (const text of texts) {
    const found = page.getByText(text).first();
    await found
      .waitFor({ state: "visible" })
      .catch(() => problems.push(`${visit.name}: the page does not say "${text}"`));
  }
  await page.getByText("Loading…").waitFor({ state: "detached" });
  const came = page.getByText("What came").first();
  if (await came.isVisible()) await came.click();
  await look(visit, "agent");
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: "Agents" }).click();
  await page.getByRole("region", { name: "Installed agents" }).locator("tbody tr").first().waitFor();
  await look(visit, "agents");
});
