/** Calls of the JSON API from a page: same session, CSRF header, errors as sentences. */

export class ApiError extends Error {
  constructor(status, { code = "error", message = "The server could not be reached.", fields = {} } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.fields = fields ?? {}; // which field of a form is meant
  }
}

function csrfToken() {
  return JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];
}

/** Raises ApiError; returns the parsed answer, or null when there is none. */
export async function callApi(method, path, body) {
  const headers = { Accept: "application/json", "X-CSRFToken": csrfToken() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`/api/${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ApiError(0);
  }
  const text = await response.text();
  const data = text && response.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : null;
  if (!response.ok) throw new ApiError(response.status, data ?? { message: `The server answered ${response.status}.` });
  return data;
}

/** A fragment of a page, or null when it cannot be had. */
export async function fetchFragment(path) {
  try {
    const response = await fetch(path, { headers: { "HX-Request": "true" } });
    return response.ok && !response.redirected ? await response.text() : null;
  } catch {
    return null;
  }
}
