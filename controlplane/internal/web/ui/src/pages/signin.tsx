import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { answer, api } from "../api/client";
import { meQuery } from "../api/queries";
import { Command, ErrorNote } from "../components/ui";

/** Sign-in with an API key, which is exchanged for a session cookie and kept nowhere in the page. */
export function SignIn() {
  const client = useQueryClient();
  const [key, setKey] = useState("");
  const signIn = useMutation({
    mutationFn: () => answer(api.POST("/api/v1/session", { body: { api_key: key.trim() } })),
    onSuccess: (me) => {
      setKey("");
      client.setQueryData(meQuery.queryKey, me);
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    signIn.mutate();
  };
  return (
    <main className="flex min-h-dvh items-center justify-center p-4">
      <div className="w-full max-w-md">
        <div className="mb-6 flex items-center justify-center gap-3">
          <img src="/favicon.svg" alt="" className="size-9" />
          <span className="text-2xl font-semibold tracking-tight">Outfeed</span>
        </div>
        <form onSubmit={submit} className="card p-5">
          <h1 className="mb-4 text-lg font-semibold">Sign in</h1>
          <label htmlFor="api-key" className="mb-1 block font-medium">
            API key
          </label>
          <input
            id="api-key"
            name="api-key"
            type="password"
            autoComplete="current-password"
            spellCheck={false}
            required
            placeholder="ofk_…"
            className="field w-full font-mono"
            value={key}
            onChange={(e) => setKey(e.target.value)}
          />
          {signIn.error && (
            <div className="-mx-3">
              <ErrorNote error={signIn.error} />
            </div>
          )}
          <button type="submit" disabled={signIn.isPending} className="button button-primary mt-4 w-full">
            {signIn.isPending ? "Signing in…" : "Sign in"}
          </button>
        </form>
        <div className="mt-5 text-sm text-muted">
          <p className="mb-2">
            No key yet? On the control plane's machine, this makes a tenant and prints its first key:
          </p>
          <Command text="outfeed-controlplane admin tenant create NAME --owner EMAIL" />
        </div>
      </div>
    </main>
  );
}
