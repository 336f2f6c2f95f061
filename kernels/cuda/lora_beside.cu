// Adapters of rows that decode. Such a product reads every weight for a few rows, so some rows of W more cost next to nothing: the adapters' a are laid
// behind the weight's own rows, in bf16, and one product gives x Wᵀ and x aᵀ together. a changes with every update, so a pass begins with laying them
// (one launch for all weights). Adapters that find no room there have a product of their own, by the same algorithm, so with the same bits.

#include "decode_product.cuh"
#include "lora_inside.cuh"
#include "lora_up.cuh"
#include "products.cuh"

#include <algorithm>

namespace arbor {
namespace {

constexpr int kOutputs = 7, kOverflow = 8; // scratch memory
constexpr int64_t kStep = 64;              // columns are a multiple of it, so that few numbers of them are met
constexpr int kMostCopies = 128, kThreads = 256;

// Some f32 arrays into bf16, values a multiple of 4 each.
struct Copies {
  bf16 *to[kMostCopies];
  const float *from[kMostCopies];
  int32_t count[kMostCopies], in[kMostCopies];
  int32_t room; // behind a row of `in`
};

__global__ __launch_bounds__(kThreads) void lay(const __grid_constant__ Copies copies) {
  const int which = int(blockIdx.y);
  for (int i = (int(blockIdx.x) * kThreads + int(threadIdx.x)) * 4; i < copies.count[which]; i += int(gridDim.x) * kThreads * 4) {
    const float4 v = *reinterpret_cast<const float4 *>(copies.from[which] + i);
    *reinterpret_cast<uint2 *>(copies.to[which] + i + i / copies.in[which] * copies.room) = make_uint2(pack_pair(v.x, v.y), pack_pair(v.z, v.w));
  }
}

void copy_all(arbor_stream *stream, const Copies &copies, int count) {
  constexpr int64_t kEach = 32 * kThreads * 4; // values of a block, so that small arrays have few
  if (count == 0) return;
  const int32_t largest = *std::max_element(copies.count, copies.count + count);
  lay<<<dim3(unsigned(std::min<int64_t>(16, ceil_div(largest, kEach))), unsigned(count)), kThreads, 0, cuda_stream(stream)>>>(copies);
}

// Columns behind `out` that the adapter's x aᵀ takes, when `taken` are taken already; false where they find no room.
bool find_room(const Adapter &adapter, int64_t out, int64_t &taken, int64_t &column) {
  if (!up_on_tensor_cores(adapter, out) || taken + adapter.width() > kSpareRows) return false;
  column = taken, taken += adapter.width();
  return true;
}

// A product of rows that decode.
int32_t multiply(arbor_stream *stream, const void *x, const void *weight, int64_t weight_ld, const DecodeOutputs &to, int64_t tokens, int64_t in,
                 int64_t family) {
  Product base{tokens, to.columns, in};
  base.a = {x, ARBOR_BF16, in};
  base.b = {weight, ARBOR_BF16, weight_ld, true};
  base.out = to.at, base.out_type = to.rounded ? ARBOR_BF16 : ARBOR_F32, base.out_ld = to.columns, base.by_row = true;
  base.few_rows = !decodes_in_order(stream);
  base.family = family, base.terms = to.terms;
  return product(stream, "arbor_linear", base);
}
int64_t bytes_of_terms(int32_t terms) { return 4 * std::max(terms, 1); }

// x aᵀ of the adapters that found no room.
int32_t overflow(arbor_stream *stream, const void *x, int64_t weight_ld, int64_t tokens, int64_t in, int64_t out, const Adapters &adapters,
                 const bool (&over)[kMostAdapters], int32_t terms, Unfinished &to) {
  int64_t columns = 0;
  for (int32_t i = 0; i < adapters.count; i++) columns += over[i] ? adapters.at[i].width() : 0;
  if (columns == 0) return ARBOR_OK;
  const int64_t ld = ceil_div(columns, kStep) * kStep;
  bf16 *memory = static_cast<bf16 *>(scratch(stream, kOverflow, ld * weight_ld * 2 + tokens * ld * bytes_of_terms(terms)));
  if (!memory) return ARBOR_OUT_OF_MEMORY;
  float *const outputs = reinterpret_cast<float *>(memory + ld * weight_ld);
  Copies copies;
  copies.room = int32_t(weight_ld - in);
  int count = 0;
  int64_t column = 0;
  for (int32_t i = 0; i < adapters.count; i++) {
    if (!over[i]) continue;
    const Adapter &adapter = adapters.at[i];
    copies.to[count] = memory + column * weight_ld, copies.from[count] = adapter.a, copies.in[count] = int32_t(in);
    copies.count[count++] = int32_t(adapter.width() * in);
    to.low[i] = outputs + column, to.low_ld[i] = ld;
    column += adapter.width();
  }
  copy_all(stream, copies, count);
  return multiply(stream, x, memory, weight_ld, {outputs, ld, terms, false}, tokens, in, out);
}

} // namespace

int32_t decode_adapted(arbor_stream *stream, void *y, const void *x, const void *weight, int32_t weight_type, const float *bias, int64_t tokens, int64_t in,
                       int64_t out, const Adapters &adapters, bool laid) {
  const int64_t ld = weight_ld(weight_type, in);
  const int32_t terms = decode_terms(stream, out, in);
  if (adapters.count == 0 && terms <= 1 && !bias) return multiply(stream, x, weight, ld, {y, out, terms, true}, tokens, in, out);
  Unfinished unfinished;
  int64_t taken = 0, columns_of[kMostAdapters] = {};
  bool beside[kMostAdapters] = {}, over[kMostAdapters] = {};
  Adapters others;
  for (int32_t i = 0; i < adapters.count; i++) {
    const bool tensor = up_on_tensor_cores(adapters.at[i], out);
    beside[i] = laid && find_room(adapters.at[i], out, taken, columns_of[i]);
    over[i] = tensor && !beside[i];
    unfinished.inside[i] = tensor && inside_forward(ARBOR_BF16, x, weight_type, in, out, adapters.at[i]);
    others.at[i] = adapters.at[i];
    if (tensor) others.at[i].row_count = 0;
  }
  others.count = adapters.count;
  const int64_t columns = out + ceil_div(taken, kStep) * kStep;
  float *outputs = static_cast<float *>(scratch(stream, kOutputs, tokens * columns * bytes_of_terms(terms)));
  if (!outputs) return ARBOR_OUT_OF_MEMORY;
  unfinished.outputs = outputs, unfinished.ld = columns, unfinished.terms = std::max(terms, 1);
  for (int32_t i = 0; i < adapters.count; i++)
    if (beside[i]) unfinished.low[i] = outputs + out + columns_of[i], unfinished.low_ld[i] = columns;
  int32_t code = multiply(stream, x, weight, ld, {outputs, columns, terms, false}, tokens, in, out);
  if (code == ARBOR_OK) code = overflow(stream, x, ld, tokens, in, out, adapters, over, terms, unfinished);
  if (code != ARBOR_OK) return code;
  const bool any = std::any_of(others.at, others.at + others.count, [](const Adapter &one) { return one.row_count > 0; });
  if (any && !project_down(stream, x, tokens, in, others, unfinished.sums)) return ARBOR_OUT_OF_MEMORY;
  pending_of(stream) = {y, bias, tokens, out, adapters, unfinished};
  return launched(stream, "arbor_linear");
}

} // namespace arbor

int32_t arbor_lay_adapters(arbor_stream *stream, int32_t weight_type, const double *weights, int64_t weight_count, const double *loras, int64_t lora_count) {
  using namespace arbor;
  ARBOR_ENTER(stream, "arbor_lay_adapters", weight_count >= 0 && lora_count >= 0 && (weight_count == 0 || weights) && (lora_count == 0 || loras));
  if (weight_type != ARBOR_BF16_ROOMY) return ARBOR_OK;
  Copies copies;
  copies.room = int32_t(weight_ld(weight_type, 0));
  int count = 0;
  for (int64_t w = 0, lora = 0; w < weight_count; w++) {
    const double *n = weights + 4 * w;
    const int64_t out = int64_t(n[1]), in = int64_t(n[2]), own = int64_t(n[3]);
    bf16 *spare = reinterpret_cast<bf16 *>(uint64_t(n[0])) + out * (in + copies.room);
    int64_t taken = 0, row = 0;
    for (const int64_t end = lora + own; lora < end; lora++) {
      Adapter adapter;
      if (lora >= lora_count || !read_adapter(adapter, loras + lora * kLoraNumbers, out)) return bad_argument("arbor_lay_adapters");
      if (in % 8 != 0 || !find_room(adapter, out, taken, row)) continue;
      copies.to[count] = spare + row * (in + copies.room), copies.from[count] = adapter.a, copies.in[count] = int32_t(in);
      copies.count[count] = int32_t(adapter.width() * in);
      if (++count < kMostCopies) continue;
      copy_all(stream, copies, count);
      count = 0;
    }
  }
  copy_all(stream, copies, count);
  return launched(stream, "arbor_lay_adapters");
}
