// The frame around every page: who is signed in, where one is, and whether what one sees is live.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useRouterState } from "@tanstack/react-router";
import { useEffect } from "react";
import { answer, api } from "../api/client";
import { ApiError } from "../api/problem";
import { meQuery } from "../api/queries";
import type { Me } from "../api/types";
import { setTheme, useTheme } from "../lib/theme";
import { useLiveState, useLiveUpdates } from "../live/live";
import { SignIn } from "../pages/signin";
import { ErrorNote, Loading } from "./ui";

const places = [
  { to: "/", name: "Overview", icon: "M2.5 9.5h4v4h-4zM9.5 2.5h4v11h-4zM2.5 2.5h4v4h-4z" },
  { to: "/agents", name: "Agents", icon: "M3 3h10v7H3zM6 13.5h4M8 10v3.5M5.5 6.5h2" },
  { to: "/flows", name: "Flows", icon: "M2 3h4v4H2zM10 9h4v4h-4zM6 5h4a2 2 0 0 1 2 2v2" },
  { to: "/runs", name: "Runs", icon: "M8 2a6 6 0 1 1-6 6M8 5v3.2l2.2 1.5M2 3.5V8h4" },
  { to: "/insights", name: "Insights", icon: "M2 13.5h12M3 10.5l3.2-4 2.8 2.5L13.5 3" },
  {
    to: "/connections",
    name: "Connections",
    icon: "M6.5 9.5l3-3M7 4.5L8.5 3a3.2 3.2 0 0 1 4.5 4.5L11.5 9M9 11.5L7.5 13A3.2 3.2 0 0 1 3 8.5L4.5 7",
  },
] as const;

export function Shell() {
  const me = useQuery(meQuery);
  if (me.error instanceof ApiError && (me.error.status === 401 || me.error.status === 403)) return <SignIn />;
  if (me.data) return <SignedIn me={me.data} />;
  return (
    <main className="mx-auto max-w-xl p-6">
      {me.error ? <ErrorNote error={me.error} onRetry={() => void me.refetch()} /> : <Loading />}
    </main>
  );
}

function SignedIn({ me }: { me: Me }) {
  useLiveUpdates(useQueryClient());
  usePageTitle();
  return (
    <div className="min-h-dvh md:grid md:grid-cols-[13rem_minmax(0,1fr)]">
      <a
        href="#main"
        className="sr-only focus:not-sr-only focus:fixed focus:top-2 focus:left-2 focus:z-20 focus:bg-surface focus:p-2"
      >
        Skip to the content
      </a>
      <header className="sticky top-0 z-10 flex items-center justify-between gap-3 border-b border-line bg-surface px-3 py-2 md:h-dvh md:flex-col md:items-stretch md:justify-start md:border-r md:border-b-0 md:px-3 md:py-4">
        <Link to="/" className="flex items-center gap-2 text-base font-semibold tracking-tight md:mb-3 md:px-2">
          <img src="/favicon.svg" alt="" className="size-6" />
          Outfeed
        </Link>
        <Navigation />
        <div className="flex items-center gap-2 md:mt-auto md:flex-col md:items-stretch md:gap-1">
          <LiveMark />
          <Account me={me} />
        </div>
      </header>
      <main id="main" tabIndex={-1} className="mx-auto w-full max-w-7xl p-3 pb-20 outline-none md:p-6">
        <Outlet />
      </main>
    </div>
  );
}

/** A column on a wide screen, a bar at the lower edge on a narrow one. */
function Navigation() {
  return (
    <nav
      aria-label="Main"
      className="fixed inset-x-0 bottom-0 z-10 grid grid-cols-6 border-t border-line bg-surface pb-[env(safe-area-inset-bottom)] md:static md:block md:space-y-0.5 md:border-0 md:pb-0"
    >
      {places.map(({ to, name, icon }) => (
        <Link
          key={to}
          to={to}
          activeOptions={{ exact: to === "/", includeSearch: false }}
          className="flex flex-col items-center gap-0.5 py-1.5 text-[0.625rem] font-medium tracking-tight text-muted hover:text-text md:flex-row md:gap-2.5 md:rounded-md md:px-2 md:py-1.5 md:text-base md:tracking-normal data-[status=active]:text-accent md:data-[status=active]:bg-accent-soft"
        >
          <svg aria-hidden="true" viewBox="0 0 16 16" className="size-5 md:size-4" fill="none" stroke="currentColor">
            <path d={icon} strokeWidth="1.4" strokeLinecap="round" strokeLinejoin="round" />
          </svg>
          {name}
        </Link>
      ))}
    </nav>
  );
}

function LiveMark() {
  const state = useLiveState();
  const [colour, words] = {
    live: ["text-ok", "Live"],
    connecting: ["text-muted", "Connecting…"],
    reconnecting: ["text-warn", "Reconnecting…"],
  }[state];
  return (
    <div
      role="status"
      data-live={state}
      title={
        state === "live"
          ? "Changes show at once."
          : "What you see may be a little old; it is loaded again once the connection is back."
      }
      className={`flex items-center gap-2 px-2 py-1 text-sm font-medium ${colour}`}
    >
      <span aria-hidden="true" className={`size-2 rounded-full bg-current ${state === "live" ? "live-dot" : ""}`} />
      {words}
    </div>
  );
}

function Account({ me }: { me: Me }) {
  const theme = useTheme();
  const other = theme === "dark" ? "light" : "dark";
  const signOut = async () => {
    await answer(api.DELETE("/api/v1/session")).catch(() => undefined);
    // Starting anew leaves nothing of the plant in the page's memory, and shows whether the control plane heard it.
    window.location.assign("/");
  };
  return (
    <>
      <div className="hidden px-2 py-1 text-sm md:block">
        <div className="truncate font-medium" title={me.name}>
          {me.name}
        </div>
        <div className="text-muted">{me.role}</div>
      </div>
      <button
        type="button"
        className="button min-h-8 px-2 text-sm md:justify-start"
        aria-label={`Use the ${other} theme`}
        onClick={() => setTheme(other)}
      >
        <svg aria-hidden="true" viewBox="0 0 16 16" className="size-4" fill="none" stroke="currentColor">
          <circle cx="8" cy="8" r="5.3" strokeWidth="1.4" />
          <path d="M8 2.7a5.3 5.3 0 0 1 0 10.6z" fill="currentColor" stroke="none" />
        </svg>
        <span className="hidden md:inline">{other === "dark" ? "Dark" : "Light"}</span>
      </button>
      <button type="button" className="button min-h-8 px-2 text-sm md:justify-start" onClick={() => void signOut()}>
        Sign out
      </button>
    </>
  );
}

function usePageTitle() {
  const path = useRouterState({ select: (state) => state.location.pathname });
  useEffect(() => {
    const place = places.find(({ to }) => to !== "/" && path.startsWith(to)) ?? places[0];
    document.title = `${place.name} · Outfeed`;
  }, [path]);
}

export function NotFound() {
  return (
    <div className="py-16 text-center">
      <h1 className="text-xl font-semibold">There is no such page</h1>
      <p className="mt-2">
        <Link to="/" className="link">
          Go to the overview
        </Link>
      </p>
    </div>
  );
}
