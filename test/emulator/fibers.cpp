// A grid: its blocks one after the other, a block's threads as fibers that run until they wait for each other or end. One grid at a time, whatever the
// stream.
//
// ARBOR_EMULATOR_ORDER=backward lets the last block, warp and lane go first: where a barrier is missing, one order or the other reads what is not
// written yet. Threads that wait for each other at different places end the process with a line that says so.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "fibers.h"
#include "races.h"
#include "switch.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
namespace {

struct Copy {
  void *to;
  char bytes[16];
  size_t count;
  int group;
};

struct Warp {
  Slot slots[2][kLanes]; // of the meeting under way and of the one before, which not all have read yet
  uint32_t arrived[2];
  uint32_t alive;
  int64_t met; // meetings so far
  Meeting at;
  uint32_t mask;
};

struct Thread {
  dim3 place;
  Stack stack;
  void *at = nullptr;
  Warp *warp = nullptr;
  unsigned lane = 0;
  bool ended = false;
  const uint64_t *arrival = nullptr; // waited for: finished uses, until their number is not of this parity
  uint64_t parity = 0;
  int64_t warp_meeting = 0, block_meeting = 0; // goes on once so many have been
  std::vector<Copy> copies;
  int groups = 0;
  Watched seen{}; // by races.cpp
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Warp> warps;
  size_t count = 0, alive = 0, arrived = 0;
  int64_t met = 0;
  int words[2] = {0, 0}; // the or of what the threads said
  alignas(1024) char shared[kMostShared];
};

std::mutex running; // one grid at a time; what follows is its
std::unique_ptr<Block> here;
Thread *self = nullptr; // that runs
void *scheduler = nullptr;
const std::function<void()> *code = nullptr;

[[noreturn]] void stop(const char *what) {
  std::fprintf(stderr, "emulated GPU: %s (block %u %u %u, thread %u %u %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
               threadIdx.y, threadIdx.z);
  std::abort();
}

void give_way() {
  emulator_switch(&self->at, scheduler);
}

void close_warp_meeting(Warp &warp) {
  warp.met++;
  warp.arrived[warp.met & 1] = 0;
}

void close_block_meeting(Block &block) {
  block.arrived = 0;
  block.met++;
  block.words[block.met & 1] = 0;
}

void end_thread(Thread &own) {
  own.ended = true;
  Warp &warp = *own.warp;
  warp.alive &= ~(1u << own.lane);
  const uint32_t arrived = warp.arrived[warp.met & 1];
  if (arrived != 0 && (arrived & warp.alive) == warp.alive) close_warp_meeting(warp);
  here->alive--;
  if (here->arrived > 0 && here->arrived == here->alive) close_block_meeting(*here);
}

void entry() {
  (*code)();
  end_thread(*self);
  give_way();
  std::abort(); // nobody wakes a thread that ended
}

bool waits(const Thread &one) {
  return one.warp_meeting > one.warp->met || one.block_meeting > here->met || (one.arrival && *one.arrival % 2 == one.parity);
}

bool backward() {
  static const bool wanted = [] {
    const char *order = std::getenv("ARBOR_EMULATOR_ORDER");
    return order && std::strcmp(order, "backward") == 0;
  }();
  return wanted;
}

void start_block() {
  Block &block = *here;
  block.count = block.alive = size_t(blockDim.x) * blockDim.y * blockDim.z;
  block.arrived = 0, block.met = 0, block.words[0] = block.words[1] = 0;
  while (block.threads.size() < block.count) block.threads.push_back(std::make_unique<Thread>());
  block.warps.resize((block.count + kLanes - 1) / kLanes);
  for (Warp &warp : block.warps) warp.arrived[0] = warp.arrived[1] = warp.alive = 0, warp.met = 0;
  for (size_t i = 0; i < block.count; i++) {
    Thread &one = *block.threads[i];
    const unsigned number = unsigned(i);
    one.place = dim3(number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y);
    one.at = one.stack.begin(entry);
    one.warp = &block.warps[i / kLanes], one.lane = number % kLanes;
    one.warp->alive |= 1u << one.lane;
    one.ended = false, one.arrival = nullptr, one.warp_meeting = one.block_meeting = 0, one.groups = 0;
    one.copies.clear();
    one.seen = {number, number / kLanes, 0, 0, one.stack.start(), one.stack.end()};
  }
  forget_accesses();
}

// Lets the threads of a warp go on until all of them wait for other warps or have ended; whether any went on.
bool run_warp(size_t first, size_t end) {
  bool any = false;
  for (bool again = true; again;) {
    again = false;
    for (size_t i = first; i < end; i++) {
      Thread &one = *here->threads[backward() ? end - 1 - (i - first) : i];
      if (one.ended || waits(one)) continue;
      self = &one, threadIdx = one.place, watched = &one.seen;
      emulator_switch(&scheduler, one.at);
      watched = nullptr;
      again = any = true;
    }
  }
  return any;
}

void run_block(const dim3 &place) {
  blockIdx = place;
  start_block();
  const size_t warps = here->warps.size();
  while (here->alive > 0) {
    bool any = false;
    for (size_t w = 0; w < warps; w++) {
      const size_t first = (backward() ? warps - 1 - w : w) * kLanes;
      any |= run_warp(first, std::min(first + kLanes, here->count));
    }
    if (!any) stop("threads wait for each other at different places");
  }
}

} // namespace

void run_grid(dim3 grid, dim3 block, const std::function<void()> &thread_code) {
  std::lock_guard<std::mutex> lock(running);
  if (!here) here = std::make_unique<Block>();
  gridDim = grid, blockDim = block, code = &thread_code;
  const int64_t blocks = int64_t(grid.x) * grid.y * grid.z;
  for (int64_t i = 0; i < blocks; i++) {
    const int64_t at = backward() ? blocks - 1 - i : i;
    run_block(dim3(unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / grid.x / grid.y)));
  }
}

static uint64_t shared_window = 0;

uint32_t shared_address(const void *place) {
  shared_window = reinterpret_cast<uint64_t>(place);
  return uint32_t(shared_window);
}

const void *at_shared(uint32_t address) {
  const int64_t distance = int32_t(address - uint32_t(shared_window));
  return reinterpret_cast<const void *>(shared_window + uint64_t(distance));
}

void *dynamic_shared() { return here->shared; }

int meet_block(int word) {
  Block &block = *here;
  const int64_t meeting = block.met;
  block.words[meeting & 1] |= word;
  self->block_meeting = meeting + 1;
  if (++block.arrived == block.alive)
    close_block_meeting(block);
  else
    give_way();
  self->seen.barriers++;
  return block.words[meeting & 1];
}

Answers meet_warp(Meeting at, uint32_t mask, const void *word, size_t bytes) {
  Thread &own = *self;
  Warp &warp = *own.warp;
  const int64_t meeting = warp.met;
  uint32_t &arrived = warp.arrived[meeting & 1];
  if (arrived == 0)
    warp.at = at, warp.mask = mask;
  else if (warp.at != at || warp.mask != mask)
    stop("the lanes of a warp meet at different instructions");
  if ((warp.alive & ~mask) != 0) stop("a lane that has not ended is left out of a warp's mask");
  Slot *slots = warp.slots[meeting & 1];
  if (bytes > 0) std::memcpy(slots[own.lane].bytes, word, bytes);
  arrived |= 1u << own.lane;
  own.warp_meeting = meeting + 1;
  if ((arrived & warp.alive) == warp.alive)
    close_warp_meeting(warp);
  else
    give_way();
  if (at == Meeting::sync) own.seen.warp_barriers++;
  return {slots, arrived};
}

void copy_later(void *to, const void *from, size_t bytes, bool valid) {
  Thread &own = *self;
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % bytes != 0) stop("a copy into shared memory is not aligned");
  Copy copy{to, {}, bytes, own.groups};
  if (valid) std::memcpy(copy.bytes, from, bytes);
  std::memset(to, 0xff, bytes); // not a number until it has arrived
  own.copies.push_back(copy);
}

void come(Arrival *arrival, int threads, int bytes) {
  arrival->awaited -= threads, arrival->missing += bytes;
  if (arrival->missing == 0 && arrival->awaited == 0) arrival->uses++, arrival->awaited = arrival->threads;
}

void wait_for_use(const uint64_t *uses, uint64_t parity) {
  self->arrival = uses, self->parity = parity;
  if (waits(*self)) give_way();
  self->arrival = nullptr;
}

void copy_words(uint16_t *to, const uint16_t *from, size_t count) { std::copy(from, from + count, to); }

void close_copies() { self->groups++; }

void wait_copies(int open) {
  Thread &own = *self;
  const auto arrives = [&](const Copy &copy) { return copy.group < own.groups - open; };
  for (const Copy &copy : own.copies)
    if (arrives(copy)) {
      note_access(copy.to, copy.count, true, __builtin_return_address(0)); // the compiler does not see it
      std::memcpy(copy.to, copy.bytes, copy.count);
    }
  own.copies.erase(std::remove_if(own.copies.begin(), own.copies.end(), arrives), own.copies.end());
}

} // namespace emulator
