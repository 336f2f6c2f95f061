// The contents of replies, in the protocol's own words.

import type { Answer, KernelBanner } from './bridge'
import { toPoints } from './cursor'
import { PROTOCOL_VERSION } from './wire'

export function kernelInfo({ version, typescript }: KernelBanner): Record<string, unknown> {
  return {
    status: 'ok',
    protocol_version: PROTOCOL_VERSION,
    implementation: 'arbor-nb',
    implementation_version: version,
    language_info: {
      name: 'typescript',
      version: typescript,
      mimetype: 'text/typescript',
      file_extension: '.ts',
      pygments_lexer: 'typescript',
      codemirror_mode: { name: 'javascript', typescript: true },
      nbconvert_exporter: 'script',
    },
    banner: `TypeScript ${typescript} on Node.js ${process.versions.node} (arbor-nb ${version})`,
    help_links: [
      { text: 'TypeScript', url: 'https://www.typescriptlang.org/docs/' },
      { text: 'Node.js', url: 'https://nodejs.org/docs/latest-v20.x/api/' },
      { text: 'DSPy', url: 'https://dspy.ai/' },
    ],
    debugger: false,
    supported_features: [],
  }
}

/** The reply to a question about `code`; its positions count code points. */
export function answerContent(answer: Answer, code: string): Record<string, unknown> {
  if (answer.what === 'isComplete')
    return answer.status === 'incomplete' ? { status: answer.status, indent: answer.indent } : { status: answer.status }
  if (answer.what === 'inspect') {
    const { found } = answer
    const text = found ? [found.signature, found.documentation].filter((part) => part !== '').join('\n\n') : ''
    const markdown = found ? `\`\`\`typescript\n${found.signature}\n\`\`\`\n\n${found.documentation}` : ''
    const data = found ? { 'text/plain': text, 'text/markdown': markdown } : {}
    return { status: 'ok', found: found !== null, data, metadata: {} }
  }
  const [start, end] = [toPoints(code, answer.start), toPoints(code, answer.end)]
  return {
    status: 'ok',
    matches: answer.matches.map(({ text }) => text),
    cursor_start: start,
    cursor_end: end,
    metadata: {
      // JupyterLab shows the type beside each name.
      _jupyter_types_experimental: answer.matches.map(({ text, kind, signature }) => ({
        start,
        end,
        text,
        type: kind,
        signature,
      })),
    },
  }
}
