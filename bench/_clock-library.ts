// A GPU that is nothing but a clock: each call adds what it would take to the device's time, and what the device waited for us is counted. The host's
// time is its thread's CPU time and what a driver takes of each call; nobody really waits, so a machine that does other work disturbs little.

import koffi from 'koffi'
import { compileLibrary } from '../src/engine/ops/stub-library.fixture'
import { H200_FREE_BYTES } from './_gpu-work'

/** Milliseconds of the device since `start`. */
export interface DeviceTimes {
  /** What it computed and copied for. */
  readonly busy: number
  /** It waited for the first call, for later ones, and had nothing more to do before the host was through. */
  readonly before: number
  readonly between: number
  readonly after: number
}

export interface ClockLibrary {
  readonly path: string
  start(): void
  read(): DeviceTimes
}

/**
 * As SmolLM2-135M's shape takes on an H200, microseconds: an op of a pass of so many rows (decoding 512 rows 1.9 ms, a prompt's 3,001 rows 3.9, a pack of
 * 16,384 some 40), copies, and of the host each launch, copy and replay.
 */
const CLOCK = `
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <algorithm>
#include <vector>
static double skew = 1, until = 1, cost = 7, recorded, busy, before, between; static bool recording, any; static std::vector<double> tickets;
static uint32_t noise = 1;
static double now() { timespec t; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); return skew + t.tv_sec * 1e6 + t.tv_nsec / 1e3; }
static void device(double host, double us) {
  if (recording) { skew += host; recorded += us; return; }
  skew += host;
  const double waited = std::max(0.0, now() - until);
  (any ? between : before) += waited; any = true;
  until = std::max(until, now()) + us; busy += us;
}
static void answer(void *to, int64_t bytes) { // tokens that differ, then logprobs; numbers alone where they are few
  uint32_t *words = (uint32_t *)to; const int64_t count = bytes / 4, ints = count % 3 ? 0 : count / 3;
  for (int64_t i = 0; i < count; i++) {
    noise = noise * 1664525u + 1013904223u;
    const float value = count < 3 ? 1.5f : -1.5f;
    if (i < ints) words[i] = 10 + (noise >> 8) % 4000; else memcpy(words + i, &value, 4);
  }
}
extern "C" {
void clock_start() { until = std::max(until, now()); skew += until - now(); busy = before = between = 0; any = false; }
double clock_read(int what) { return (what == 0 ? busy : what == 1 ? before : what == 2 ? between : std::max(0.0, now() - until)) / 1000; }
}`

const BODIES: Readonly<Record<string, string>> = {
  arbor_device_count: 'return 1;',
  arbor_memory: `return ${H200_FREE_BYTES};`,
  arbor_weight_bytes: 'return 64;',
  arbor_capture_begin: 'recording = true; recorded = 0; skew += 2000; return 0;',
  arbor_capture_end: 'recording = false; skew += 1500; return new double(recorded);',
  arbor_replay: 'device(60, *(double *)capture); return 0;',
  arbor_upload: 'device(4, 4 + bytes / 2e4); return 0;',
  arbor_download:
    'device(6, 8); const double began = now(); answer(to, bytes); skew -= now() - began; tickets.push_back(until); return tickets.size();',
  arbor_wait: 'const double left = tickets[ticket - 1] - now(); if (left > 0) skew += left + (left > 4000 ? 100 : 0); return 0;',
  arbor_embed: 'cost = 5 + 0.003 * tokens; device(5, cost); return 0;',
}
/** They are no work for the device. */
const IDLE = /arbor_(open|close|free|status|prepare_weight|capture_free|best_precision|weight_type|group)/

export function clockLibrary(): ClockLibrary {
  const path = compileLibrary(CLOCK, bodyOf)
  const library = koffi.load(path)
  const read = library.func('double clock_read(int what)') as (what: number) => number
  const start = library.func('void clock_start()') as () => void
  return { path, start, read: () => ({ busy: read(0), before: read(1), between: read(2), after: read(3) }) }
}

function bodyOf(name: string, prototype: string): string {
  const known = BODIES[name]
  if (known !== undefined) return known
  if (prototype.startsWith('const char *')) return 'return "a clock";'
  if (prototype.startsWith('void *')) return 'return (void *)64;'
  return IDLE.test(name) ? 'return 0;' : 'device(5, cost); return 0;'
}
