// Text that a model or a person wrote, as HTML that means nothing else.

/** Safe in elements and in quoted attributes. */
export function escapeHtml(value: unknown): string {
  return String(value).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
}
