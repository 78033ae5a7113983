// Errors of the API as people read them.

/** What an RFC 9457 problem of this API may carry. */
interface ProblemBody {
  title?: string;
  detail?: string;
  code?: string;
  errors?: { location?: string; message?: string }[] | null;
  problems?: { line: number; column: number; step?: string; message: string }[] | null;
}

/** A refused or failed call. The message is what happened, in words; details are its parts. */
export class ApiError extends Error {
  constructor(
    message: string,
    /** The HTTP status; 0 when no answer came. */
    readonly status: number,
    readonly code: string,
    readonly details: string[],
  ) {
    super(message);
    this.name = "ApiError";
  }
}

/** Reads whatever came back with an error status: a problem, or a proxy's page. */
export function problemFrom(status: number, body: unknown): ApiError {
  const problem: ProblemBody = typeof body === "object" && body !== null ? body : {};
  const details = [
    ...(problem.errors ?? []).map((e) => [e.location, e.message].filter(Boolean).join(": ")),
    ...(problem.problems ?? []).map((p) => `${p.line > 0 ? `line ${p.line}, column ${p.column}: ` : ""}${p.message}`),
  ];
  return new ApiError(problem.detail || problem.title || statusSentence(status), status, problem.code ?? "", details);
}

/** No answer came at all. */
export function unreachable(): ApiError {
  return new ApiError(
    "The control plane does not answer. Check the network and that outfeed-controlplane is running; this page tries again by itself.",
    0,
    "unreachable",
    [],
  );
}

function statusSentence(status: number): string {
  if (status === 401) return "You are signed out. Sign in with an API key.";
  if (status === 403) return "Your role does not allow this.";
  if (status === 404) return "There is nothing here under that name.";
  if (status === 502 || status === 503 || status === 504) {
    return "The control plane is not serving at the moment. This page tries again by itself.";
  }
  return `The control plane answered with status ${status} and gave no reason.`;
}

/** The text and the parts of any error. */
export function describeError(error: unknown): { message: string; details: string[] } {
  if (error instanceof ApiError) return { message: error.message, details: error.details };
  return { message: error instanceof Error ? error.message : String(error), details: [] };
}
