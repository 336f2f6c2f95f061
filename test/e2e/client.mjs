// A notebook's process in small: compiles for ever against a server of its own. faults.test.ts kills it.
// Arguments: the compiled library, the model, the storage. Prints the server's pid, then a line a step.

const [library, model, storagePath] = process.argv.slice(2)
const { arbor, dspy } = await import(library).then((module) => module.default)

class PlainTextAdapter extends dspy.ChatAdapter {
  format(_signature, _demos, { question }) {
    return [{ role: 'user', content: question }]
  }
  tryParse(_signature, text) {
    return { fields: { answer: text } }
  }
}

class Answering extends dspy.Module {
  answer = new dspy.Predict('question -> answer')
  forward(inputs) {
    return this.answer.call(inputs)
  }
}

const server = await arbor.startServer(model, { storagePath, device: 'cpu', port: 0 })
console.log(`server ${server.pid}`)
const options = { provider: new arbor.ArborProvider(), apiBase: server.baseUrl, temperature: 1, maxTokens: 10 }
dspy.configure({ lm: new dspy.LM(`openai/arbor:${model}`, options), adapter: new PlainTextAdapter() })
dspy.setProgressObserver(({ kind, payload }) => {
  if (kind === 'grpo:item' && payload.record) console.log(`step ${payload.record.step} ${payload.record.job_id}`)
})
const compiler = new arbor.ArborGRPO({
  metric: (_, { answer }) => answer.length,
  numTrainSteps: 100_000,
  numStepsForVal: 100_000,
  seed: 7,
  trainKwargs: {
    learning_rate: 1e-4,
    mask_truncated_completions: false,
    lora_config: { r: 8, lora_alpha: 16, target_modules: 'all-linear', lora_dropout: 0 },
  },
})
const trainset = ['one', 'two', 'three'].map((question) => new dspy.Example({ question }).withInputs('question'))
await compiler.compile(new Answering(), { trainset })
