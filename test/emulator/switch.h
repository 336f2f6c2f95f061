// Fibers: a stack each, and a switch from one to another.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

namespace emulator {

#if defined(__x86_64__)

extern "C" void emulator_switch(void **from, void *to); // keeps where `from` is, goes on where `to` was
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch, .-emulator_switch
)");
constexpr int kSaved = 6;

#elif defined(__aarch64__)

extern "C" void emulator_switch(void **from, void *to);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, %function
emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");

#else
#error "the emulator knows x86-64 and arm64"
#endif

class Stack {
public:
  Stack() : memory_(static_cast<char *>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory_, 4096, PROT_NONE); // what overflows faults
  }
  ~Stack() { munmap(memory_, kBytes); }
  Stack(const Stack &) = delete;

  // Where a switch to this fiber begins: in `entry`, on an empty stack.
  void *begin(void (*entry)()) const {
    auto *top = reinterpret_cast<void **>(memory_ + kBytes - 64);
#if defined(__x86_64__)
    top[0] = reinterpret_cast<void *>(entry);
    top[1] = nullptr; // its return address, 8 past a multiple of 16 as a call leaves it; it never returns
    return top - kSaved;
#else
    auto *frame = top - 20;
    frame[11] = reinterpret_cast<void *>(entry); // x30
    return frame;
#endif
  }

  uintptr_t start() const { return reinterpret_cast<uintptr_t>(memory_); }
  uintptr_t end() const { return start() + kBytes; }

private:
  static constexpr size_t kBytes = 128 << 10;
  char *memory_;
};

} // namespace emulator
