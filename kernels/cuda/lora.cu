// Adapters beside a product of many rows, and which way each goes: that hangs on the adapter and the weight alone, so no bit of its rows on the adapters
// beside it. Most go through a few launches for all of them (lora_down.cu, lora_add_mma.cu, lora_gradients.cu), the others through small products.

#include "lora.cuh"

#include "lora_add.cuh"
#include "lora_add_mma.cuh"
#include "lora_products.cuh"

namespace arbor {

bool read_adapter(Adapter &to, const double *n, int64_t out) {
  const auto pointer = [](double number) { return reinterpret_cast<float *>(uint64_t(number)); };
  to.row_start = int32_t(n[0]), to.row_count = int32_t(n[1]), to.rank = int32_t(n[2]), to.scale = float(n[3]);
  int64_t rows = 0;
  to.part_count = 0;
  for (int p = 0; p < kParts; p++) {
    to.parts[p] = int32_t(n[4 + p]);
    rows += to.parts[p];
    if (to.parts[p] > 0) to.part_count = p + 1;
  }
  to.a = pointer(n[8]), to.b = pointer(n[9]), to.xa = pointer(n[10]), to.da = pointer(n[11]), to.db = pointer(n[12]);
  return to.rank >= 1 && rows == out && given(to.a, to.b);
}

bool read_adapters(Adapters &to, const double *loras, int64_t count, int64_t tokens, int64_t out, bool backward) {
  if (count < 0 || count > kMostAdapters || (count > 0 && !loras)) return false;
  to.count = int32_t(count);
  for (int64_t i = 0; i < count; i++) {
    Adapter &a = to.at[i];
    if (!read_adapter(a, loras + i * kLoraNumbers, out) || !given(a.xa) || (backward && !given(a.da, a.db))) return false;
    if (a.row_start < 0 || a.row_count < 0 || int64_t(a.row_start) + a.row_count > tokens) return false;
  }
  return true;
}

bool adds_rounded(const Adapter &adapter, int64_t out) {
  bool all = out % 8 == 0 && adapter.rank % 8 == 0;
  for (int32_t p = 0; p < adapter.part_count; p++) all = all && adapter.parts[p] % 8 == 0;
  return all;
}

namespace {

bool adds_low_rank(const void *y, int32_t y_type, const Adapter &adapter) {
  return y_type == ARBOR_BF16 && adapter.rank <= kMostTerms && reinterpret_cast<uint64_t>(y) % 16 == 0;
}

// The members of an adapter among what the next launch adds to y.
void add_members(cudaStream_t on, LowRanks &all, bf16 *y, int64_t out, const Adapter &adapter, const bf16 *xa) {
  int64_t first = 0; // column
  for (int32_t p = 0; p < adapter.part_count; first += adapter.parts[p++]) {
    if (adapter.parts[p] == 0) continue;
    if (all.count == kMostLowRank) add_low_ranks(on, all), all.count = 0;
    LowRank &one = all.at[all.count++];
    one.y = y + adapter.row_start * out + first, one.low = xa + p * adapter.rank, one.high = adapter.b + first * adapter.rank;
    one.y_ld = out, one.k_step = 1, one.column_step = adapter.rank;
    one.rows = adapter.row_count, one.columns = adapter.parts[p], one.low_ld = adapter.width(), one.terms = adapter.rank, one.scale = adapter.scale;
  }
}

// y += Σ scale xa bᵀ, and xa, of adapters whose xa and b are rounded to bf16.
int32_t add_rounded(arbor_stream *stream, void *y, int32_t y_type, const void *x, int64_t tokens, int64_t in, int64_t out, const Adapters &adapters) {
  if (adapters.count == 0) return ARBOR_OK;
  int64_t values = 0;
  const auto size = [&](int32_t i) { return int64_t(adapters.at[i].row_count) * adapters.at[i].width(); }; // a multiple of 8: rows of 16 bytes
  for (int32_t i = 0; i < adapters.count; i++) values += size(i);
  bf16 *xa = static_cast<bf16 *>(scratch(stream, 3, values * 2));
  if (!xa) return ARBOR_OUT_OF_MEMORY;
  bf16 *rounded[kMostAdapters];
  for (int32_t i = 0; i < adapters.count; xa += size(i++)) rounded[i] = xa;
  int32_t code = project_down_rounded(stream, x, tokens, in, adapters, rounded);
  LowRanks all;
  for (int32_t i = 0; i < adapters.count && code == ARBOR_OK; i++)
    if (adds_low_rank(y, y_type, adapters.at[i]))
      add_members(cuda_stream(stream), all, static_cast<bf16 *>(y), out, adapters.at[i], rounded[i]);
    else
      code = add_by_products(stream, y, y_type, out, adapters.at[i], rounded[i]);
  if (code == ARBOR_OK) add_low_ranks(cuda_stream(stream), all);
  return code == ARBOR_OK ? launched(stream, "arbor_linear") : code;
}

} // namespace

int32_t add_adapters(arbor_stream *stream, int32_t type, void *y, int32_t y_type, const void *x, const float *bias, int64_t tokens, int64_t in,
                     int64_t out, const Adapters &adapters) {
  Adapters rounded, others;
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &adapter = adapters.at[i];
    if (adapter.row_count == 0) continue;
    Adapters &to = projects_down(type, x, in, adapter) && adds_rounded(adapter, out) ? rounded : others;
    to.at[to.count++] = adapter;
  }
  int32_t code = add_rounded(stream, y, y_type, x, tokens, in, out, rounded);
  if (code == ARBOR_OK) code = down_by_products(stream, type, x, in, others);
  if (code != ARBOR_OK) return code;
  add_all(stream, y, y_type, bias, tokens, out, others, kManyRows);
  return launched(stream, "arbor_linear");
}

int32_t add_adapter_gradients(arbor_stream *stream, int32_t type, void *dx, const void *dy, const void *x, int64_t in, int64_t out,
                              const Adapters &adapters) {
  Adapters passes;
  for (int32_t i = 0; i < adapters.count; i++) {
    const Adapter &adapter = adapters.at[i];
    if (adapter.row_count == 0) continue;
    if (gradients_by_passes(type, dx, dy, x, in, out, adapter)) {
      passes.at[passes.count++] = adapter;
      continue;
    }
    const int32_t code = add_gradients_by_products(stream, type, dx, dy, x, in, out, adapter);
    if (code != ARBOR_OK) return code;
  }
  if (passes.count == 0) return ARBOR_OK;
  return add_gradients_by_passes(stream, static_cast<bf16 *>(dx), static_cast<const bf16 *>(dy), static_cast<const bf16 *>(x), in, out, passes);
}

} // namespace arbor
