#include "product_trial.cuh"

#include <algorithm>

namespace arbor {
namespace {

constexpr int64_t kCompared = 16384; // outputs whose bits are compared at least
constexpr int kMostRounds = 32;      // of noise, to get there
constexpr int kRounds = 5;           // of the clock
constexpr float kNear = 1.25f;       // times the fastest: what is slower once is not tried again
// Blocks that are more, or narrower, ask for more of W before the kernels before have ended, of which a trial by itself sees nothing: 7B's down by 32 rows
// takes 40 us by itself in blocks of 64 and of 32, and 10 us less of the second behind the kernels of a layer (the step 4.81 and 4.54 ms).
constexpr float kAhead = 1.04f;

__device__ __forceinline__ uint32_t hash(uint32_t x, uint32_t seed) {
  uint32_t z = x * 0x9e3779b1u + seed * 0x632be5abu;
  z = (z ^ (z >> 15)) * 0x85ebca6bu;
  z = (z ^ (z >> 13)) * 0xc2b2ae35u;
  return z ^ (z >> 16);
}

// Values in −1 … 1 from a hash of their place. Every other row has a large value and its negative besides: where their weights are equal they cancel,
// and what the order of the sum did to the rest shows even in bf16. (Short sums of like numbers nearly always round to the same bf16.)
template <class T> __global__ void fill_noise(T *out, int64_t count, int64_t depth, uint32_t seed) {
  constexpr float kLarge = 1 << 22;
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float value = float(int32_t(hash(uint32_t(i), seed))) * (1.0f / 2147483648.0f);
  const uint32_t row = uint32_t(i / depth), k = uint32_t(i % depth);
  if (row % 2 == 1 && depth > 1) {
    const uint32_t one = hash(row, ~seed) % uint32_t(depth), other = (one + 1 + hash(~row, seed) % uint32_t(depth - 1)) % uint32_t(depth);
    if (k == one) value = kLarge;
    if (k == other) value = -kLarge;
  }
  out[i] = from_float<T>(value);
}

__global__ void count_differences(const uint32_t *a, const uint32_t *b, int64_t words, int32_t *differences) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < words && a[i] != b[i]) atomicAdd(differences, 1);
}

// What lies in the level-2 cache is then ours, and nothing in it waits to be written.
__global__ void read_all(const uint4 *from, int64_t count, int32_t *never) {
  uint32_t any = 0;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x) {
    const uint4 four = from[i];
    any |= four.x | four.y | four.z | four.w;
  }
  if (any == 0x5eed) *never = 1; // or nothing would be read
}

int64_t padded(int64_t bytes) { return ceil_div(bytes, 256) * 256; }

// A product on noise: the reference's outputs and a candidate's.
struct Trial {
  arbor_stream *stream;
  const CublasLt &lt;
  Product product;
  char *expected, *actual;
  int64_t bytes;
  int32_t *differences;
  char *others; // read so that the level-2 cache holds nothing of the product
  int64_t others_bytes;
  cudaEvent_t begin, end;

  void fill(uint32_t seed) const {
    const int64_t count = product.rows * product.depth;
    const unsigned blocks = unsigned(ceil_div(count, 256));
    void *x = const_cast<void *>(product.a.data);
    if (product.a.type == ARBOR_BF16)
      fill_noise<<<blocks, 256, 0, cuda_stream(stream)>>>(static_cast<bf16 *>(x), count, product.depth, seed);
    else
      fill_noise<<<blocks, 256, 0, cuda_stream(stream)>>>(static_cast<float *>(x), count, product.depth, seed);
  }

  int32_t into(char *out, const Plan &plan) const {
    Product one = product;
    one.out = out;
    return lt.enqueue(stream, one, plan);
  }

  bool has_expected_bits(const Plan &plan) const {
    const cudaStream_t s = cuda_stream(stream);
    cudaMemsetAsync(differences, 0, 4, s);
    if (into(actual, plan) != 0) return false;
    const int64_t words = bytes / 4;
    count_differences<<<unsigned(ceil_div(words, 256)), 256, 0, s>>>(reinterpret_cast<const uint32_t *>(expected),
                                                                    reinterpret_cast<const uint32_t *>(actual), words, differences);
    int32_t found = 1;
    cudaMemcpyAsync(&found, differences, 4, cudaMemcpyDeviceToHost, s);
    return cudaStreamSynchronize(s) == cudaSuccess && found == 0;
  }

  float milliseconds(const Plan &plan) const {
    const cudaStream_t s = cuda_stream(stream);
    read_all<<<1024, 256, 0, s>>>(reinterpret_cast<const uint4 *>(others), others_bytes / int64_t(sizeof(uint4)), differences);
    cudaEventRecord(begin, s);
    into(actual, plan);
    cudaEventRecord(end, s);
    float time = 0;
    return cudaEventSynchronize(end) == cudaSuccess && cudaEventElapsedTime(&time, begin, end) == cudaSuccess ? time : 1e30f;
  }
};

// Leaves the candidates whose outputs have the reference's bits, on fresh noise until enough of them were compared.
void keep_equal(const Trial &trial, const Plan &reference, std::vector<Plan> &candidates) {
  const int64_t outputs = std::max(trial.product.rows * trial.product.columns, int64_t(1));
  const int rounds = int(std::min(int64_t(kMostRounds), ceil_div(kCompared, outputs)));
  for (int round = 0; round < rounds && !candidates.empty(); round++) {
    trial.fill(uint32_t(round));
    if (trial.into(trial.expected, reference) != 0) return candidates.clear();
    const auto differs = [&](const Plan &plan) { return !trial.has_expected_bits(plan); };
    candidates.erase(std::remove_if(candidates.begin(), candidates.end(), differs), candidates.end());
  }
}

// The least time of each in rounds of all that are near the fastest so far. Where two are 3 % apart their least times of five never changed places, those
// of three one after the other did (7B's gate and up by 32 rows on an H200, behind a cache that a fill had left to be written: 77.0 and 77.5 us instead of
// 68 and 70).
size_t fastest_of(const Trial &trial, const std::vector<Plan> &plans) {
  std::vector<float> least(plans.size(), 1e30f);
  float best = 1e30f;
  for (int round = 0; round < kRounds; round++)
    for (size_t i = 0; i < plans.size(); i++) {
      if (round > 0 && least[i] > kNear * best) continue;
      least[i] = std::min(least[i], trial.milliseconds(plans[i]));
      best = std::min(best, least[i]);
    }
  if (plans[0].own) least[0] *= kAhead;
  return size_t(std::min_element(least.begin(), least.end()) - least.begin());
}

// Its own and for as long as a trial takes: noise and twice the outputs of the widest product are a gigabyte.
struct TrialMemory {
  char *memory = nullptr;
  explicit TrialMemory(int64_t bytes) {
    if (cudaMalloc(&memory, size_t(bytes)) != cudaSuccess) cudaGetLastError(), memory = nullptr;
  }
  TrialMemory(const TrialMemory &) = delete;
  ~TrialMemory() { cudaFree(memory); }
};

} // namespace

Plan fastest_equal(arbor_stream *stream, const CublasLt &lt, const Product &p, const Plan &reference, std::vector<Plan> candidates, int64_t level_2_bytes) {
  const int64_t x_bytes = padded(p.rows * p.depth * bytes_of(p.a.type)), out_bytes = p.rows * p.out_ld * bytes_of(p.out_type) * std::max(p.terms, 1);
  if (p.a.transposed || candidates.empty()) return reference;
  const int64_t all = 256 + x_bytes + 2 * padded(out_bytes) + 2 * level_2_bytes;
  const TrialMemory own(all);
  if (!own.memory) return reference;
  char *x = own.memory + 256, *out = x + x_bytes, *actual = out + padded(out_bytes);
  Trial trial{stream, lt, p, out, actual, out_bytes, reinterpret_cast<int32_t *>(own.memory), actual + padded(out_bytes), 2 * level_2_bytes};
  trial.product.a.data = x;
  trial.product.a.ld = p.depth;
  trial.product.beta = 0;
  keep_equal(trial, reference, candidates);
  if (candidates.empty()) return reference;
  candidates.insert(candidates.begin(), reference); // which is taken where no other is faster
  cudaEventCreate(&trial.begin), cudaEventCreate(&trial.end);
  const size_t fastest = fastest_of(trial, candidates);
  cudaEventDestroy(trial.begin), cudaEventDestroy(trial.end);
  return candidates[fastest];
}

} // namespace arbor
