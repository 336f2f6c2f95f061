// What a data set is about, in two or three sentences, written by a language model that sees it batch by batch.
// After DSPy's propose/dataset_summary_generator.py; the prompts are DSPy's.

import { currentSettings, type Example, Predict, Signature } from '../program'
import { examplesText, stripPrefix } from './proposer-text'

const EXAMPLES = { desc: 'Sample data points from the dataset' }

const DESCRIBE = new Signature(
  {
    name: 'DatasetDescriptor',
    inputs: { examples: EXAMPLES },
    outputs: { observations: { desc: 'Somethings that holds true for most or all of the data you observed' } },
  },
  'Given several examples from a dataset please write observations about trends that hold for most or all of the samples. ' +
    'Some areas you may consider in your observations: topics, content, syntax, conciseness, etc. ' +
    "It will be useful to make an educated guess as to the nature of the task this dataset will enable. Don't be afraid to be creative",
)

const DESCRIBE_MORE = new Signature(
  {
    name: 'DatasetDescriptorWithPriorObservations',
    inputs: { examples: EXAMPLES, prior_observations: { desc: 'Some prior observations I made about the data' } },
    outputs: {
      observations: {
        desc: 'Somethings that holds true for most or all of the data you observed or COMPLETE if you have nothing to add',
      },
    },
  },
  'Given several examples from a dataset please write observations about trends that hold for most or all of the samples. ' +
    "I will also provide you with a few observations I have already made.  Please add your own observations or if you feel the observations are comprehensive say 'COMPLETE' " +
    'Some areas you may consider in your observations: topics, content, syntax, conciceness, etc. ' +
    "It will be useful to make an educated guess as to the nature of the task this dataset will enable. Don't be afraid to be creative",
)

const SUMMARIZE = new Signature(
  {
    name: 'ObservationSummarizer',
    inputs: { observations: { desc: 'Observations I have made about my dataset' } },
    outputs: {
      summary: { desc: 'Two to Three sentence summary of only the most significant highlights of my observations' },
    },
  },
  'Given a series of observations I have made about my dataset, please summarize them into a brief 2-3 sentence summary which highlights only the most important details.',
)

const SAMPLING = { n: 1, temperature: 1 }
/** Batches looked at, the first one included. */
const MOST_BATCHES = 10
/** Times the model may say that there is nothing to add. */
const MOST_SKIPS = 5

/** Asks the configured model. A failure after the first batch leaves the observations so far. */
export async function summarizeDataset(trainset: readonly Example[], batchSize: number): Promise<string> {
  const ask = async (signature: Signature, inputs: object, answer: string) =>
    String((await new Predict(signature, SAMPLING).call(inputs as never)).get(answer))
  const batch = (from: number) => examplesText(trainset.slice(from, from + batchSize))
  let observations = await ask(DESCRIBE, { examples: batch(0) }, 'observations')
  let skips = 0
  try {
    for (let i = 1; i < MOST_BATCHES && i * batchSize < trainset.length && skips < MOST_SKIPS; i++) {
      const inputs = { prior_observations: observations, examples: batch(i * batchSize) }
      const more = await ask(DESCRIBE_MORE, inputs, 'observations')
      if (more.slice(0, 8).toUpperCase() === 'COMPLETE') skips++
      else observations += more
    }
  } catch (error) {
    const { signal, onWarning } = currentSettings()
    signal?.throwIfAborted()
    onWarning?.(`The dataset summary goes by what was seen so far: ${String(error).split('\n')[0]}`)
  }
  return stripPrefix(await ask(SUMMARIZE, { observations }, 'summary'))
}
