// Attention of many single rows: as attention_decode.cu, to the bit, but a block has three tiles of rows, so that one block for each multiprocessor will do
// for some hundred rows. Its work is cut into tasks: a strip of keys, the rows next to one another in a tile that list the same slots there. A warp
// takes one after the other and leaves the sums in shared memory, where each row and strip has a place: which warp it was, and when, changes nothing.

#include <algorithm>

#include "attention.cuh"
#include "attention_join.cuh"

namespace arbor {
namespace {

constexpr int kWarps = kManyWarps, kThreads = 32 * kWarps, kTiles = 3, kRoom = 36; // room for sums of so many rows and heads
constexpr int kMostTasks = kWarps * kTiles * kMostRows;

template <int D> struct alignas(256) Crowd {
  bf16 queries[kTiles][kTileRows * D];
  bf16 strips[kWarps][2][kStrip * D]; // a warp's keys and values
  float sums[kWarps][kRoom * D];      // of each strip
  float peaks[kWarps][kRoom], totals[kWarps][kRoom];
  // Those of one row first: their keys are the farthest.
  int lone[kMostTasks], joint[kMostTasks], lone_count, joint_count, next;

  __device__ __forceinline__ float *sum_at(int strip, int m, int d) { return sums[strip] + m * D + (d ^ ((m & 3) << 3)); }
  __device__ __forceinline__ const float *sum_at(int strip, int m, int d) const { return const_cast<Crowd *>(this)->sum_at(strip, m, d); }
};

// A task, and where it stands: keys from `at` on, of which this lane's has the slot `slot`. Rows [begin, end) of the tile, none when there is no task left.
struct Task {
  int strip, tile, begin, end, at, length, slot;

  static __device__ __forceinline__ int packed(int strip, int tile, int begin, int end) { return strip | tile << 8 | begin << 16 | end << 24; }
};

// A warp finds the tasks of its strip, whose first key is `first`. Rows that have more than one such strip to pass over go alone.
template <int D>
__device__ __forceinline__ void find_tasks(const AttentionShape &shape, const Rows &rows, int most, int first, int step, Crowd<D> &shared) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
  PerRow lengths[kTiles], slots[kTiles];
#pragma unroll
  for (int tile = 0; tile < kTiles; tile++) { // all on their way at once
    lengths[tile] = PerRow::of([&](int r) { return r < most ? rows.length(tile * most + r) : 0; });
    slots[tile] = PerRow::of([&](int r) {
      const int start = rows.entries(tile * most + r);
      return first + lane < lengths[tile].at(r) ? shape.context[start + first + lane] : -1;
    });
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; tile++)
    for (int begin = 0, end; begin < most; begin = end) {
      end = begin + 1;
      const int length = lengths[tile].at(begin), own = slots[tile].at(begin);
      if (first >= length) continue;
      while (end < most && first + kStrip <= min(length, lengths[tile].at(end)) && rows.longest <= step &&
             __all_sync(0xffffffffu, own == slots[tile].at(end)))
        end++;
      if (lane != 0) continue;
      const int task = Task::packed(warp, tile, begin, end);
      if (end - begin == 1)
        shared.lone[atomicAdd(&shared.lone_count, 1)] = task;
      else
        shared.joint[atomicAdd(&shared.joint_count, 1)] = task;
    }
}

// A warp's way through tasks: strip s of this split begins at key first + s * kStrip, and again every `step` keys.
template <int D> struct Walk {
  const AttentionShape &shape;
  const Rows &rows;
  Crowd<D> &shared;
  int most, first, step;

  __device__ __forceinline__ void read_slot(Task &task) const {
    const int row = task.tile * most + task.begin, key = task.at + (int(threadIdx.x) & 31), start = rows.entries(row);
    task.length = rows.length(row);
    task.slot = key < task.length ? shape.context[start + key] : -1;
  }
  __device__ __forceinline__ Task claim() const {
    int at = 0;
    if ((threadIdx.x & 31) == 0) at = atomicAdd(&shared.next, 1);
    at = __shfl_sync(0xffffffffu, at, 0);
    if (at >= shared.lone_count + shared.joint_count) return {0, 0, 0, 0, 0, 0, -1};
    const int packed = at < shared.lone_count ? shared.lone[at] : shared.joint[at - shared.lone_count], strip = packed & 255;
    Task task = {strip, packed >> 8 & 255, packed >> 16 & 255, packed >> 24, first + strip * kStrip, 0, -1};
    read_slot(task);
    return task;
  }
  __device__ __forceinline__ bool goes_on(const Task &task) const { return task.at + step < task.length; }
  __device__ __forceinline__ Task after(Task task) const {
    if (!goes_on(task)) return claim();
    task.at += step;
    read_slot(task);
    return task;
  }
};

// A warp's share of the tasks. The next keys are on their way while the values are used, and the next values while the keys are.
template <int D>
__device__ __forceinline__ void do_tasks(const Walk<D> &walk, const bf16 *k, const bf16 *v, float scale, Crowd<D> &shared) {
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, width = walk.shape.kv_width(), heads = walk.rows.heads;
  bf16 *const keys = shared.strips[warp][0], *const values = shared.strips[warp][1];
  Task now = walk.claim(), next = now.end > 0 ? walk.after(now) : now;
  int slot = now.end > 0 && now.slot >= 0 ? checked_slot(walk.shape, now.slot) : -1;
  copy_strip<D>(keys, k, slot, width);
  close_copies();
  copy_strip<D>(values, v, slot, width);
  close_copies();
  Sums<D> sums;
  while (now.end > 0) {
    wait_copies<1>(); // the keys
    __syncwarp();
    float scores[kStrip / 8][4] = {};
    add_inner_products<D, kStrip>(scores, shared.queries[now.tile], 0, keys, 0, lane);
    __syncwarp();
    slot = next.slot >= 0 ? checked_slot(walk.shape, next.slot) : -1;
    if (next.end > 0) copy_strip<D>(keys, k, slot, width);
    close_copies();
    if (now.at + kStrip > now.length) { // other tasks' rows may do as they like
      const int seen[2] = {now.length, now.length};
      mask<kStrip>(scores, seen, now.at, lane);
    }
    add_values<D>(sums, scores, values, lane, scale);
    if (next.end > 0) copy_strip<D>(values, v, slot, width);
    close_copies();
    if (!walk.goes_on(now)) {
      lay_down<D>(sums, now.begin * heads, now.end * heads, scale, shared, now.strip, now.tile * walk.most * heads);
      sums = Sums<D>();
    }
    now = next;
    if (now.end > 0) next = walk.after(now);
  }
  wait_copies<0>();
}

// A block for kTiles times `most` segments and a key head.
template <int D>
__global__ void __launch_bounds__(kThreads, 1)
    crowd_kernel(AttentionShape shape, int most, const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *lse, float *partial, float scale) {
  extern __shared__ __align__(256) unsigned char memory[];
  Crowd<D> &shared = *reinterpret_cast<Crowd<D> *>(memory);
  const int kv_head = int(blockIdx.y);
  Rows rows(shape, int(blockIdx.x) * kTiles * most, kTiles * most);
  rows.head = kv_head * shape.group(), rows.heads = shape.group();
  bool before = false; // whether what the kernels before have written may be read
  for (int query = 0; rows.pick(query); query++) { // one, where the engine decodes
    const int splits = splits_of<kWarps>(rows.longest);
    for (int split = 0; split < splits; split++) {
      if (threadIdx.x == 0) shared.lone_count = shared.joint_count = shared.next = 0;
      __syncthreads(); // also, the sums before are read
      const Walk<D> walk{shape, rows, shared, most, split * kWarps * kStrip, kSplits * kWarps * kStrip};
      find_tasks<D>(shape, rows, most, walk.first + (int(threadIdx.x) >> 5) * kStrip, walk.step, shared);
      if (!before) after_kernels_before(), before = true; // what rows see is the host's to say, and read; all else is not
      if (split == 0)
        for (int tile = 0; tile < kTiles; tile++)
          copy_queries<D, kWarps>(shape, rows, tile * most, min(rows.count, (tile + 1) * most), q, shared.queries[tile]);
      close_copies();
      wait_copies<0>();
      __syncthreads(); // tasks and queries are every warp's
      do_tasks<D>(walk, k + kv_head * D, v + kv_head * D, scale, shared);
      __syncthreads();
      join_strips<D, kWarps>(shape, rows, split, out, lse, partial, shared);
    }
    __syncthreads();
    if (splits > 1) join_splits<D, kWarps>(shape, rows, out, lse, partial);
  }
  if (!before) after_kernels_before(); // no grid ends before those before it, though its blocks had nothing to do
}

} // namespace

bool attend_crowd(arbor_stream *stream, const AttentionShape &shape, const AttentionTensors &t, float *partial, int most) {
  if (shape.dim > 64 || kTiles * most * shape.group() > kRoom) return false;
  const dim3 grid(unsigned(ceil_div(shape.segment_count, kTiles * most)), unsigned(shape.kv_heads));
  const auto launch = [&](auto kernel, size_t bytes) {
    if (!allow_shared(kernel, bytes)) return false;
    launch_after(kernel, grid, kThreads, bytes, cuda_stream(stream), shape, most, static_cast<const bf16 *>(t.q), static_cast<const bf16 *>(t.k),
                 static_cast<const bf16 *>(t.v), static_cast<bf16 *>(t.out), t.lse, partial, kLog2e / sqrtf(float(shape.dim)));
    return true;
  };
  return shape.dim == 64 ? launch(crowd_kernel<64>, sizeof(Crowd<64>)) : launch(crowd_kernel<32>, sizeof(Crowd<32>));
}

} // namespace arbor
