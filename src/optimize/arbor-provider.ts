// Marks an LM as one whose weights an Arbor server trains; the optimizers look for it.

/** `new dspy.LM('openai/arbor:NAME', { provider: new arbor.ArborProvider(), apiBase })` */
export class ArborProvider {
  readonly trainable = true
}
