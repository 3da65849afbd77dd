// Counts the heap allocations of a test program, for tests that allow none.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace concord {

std::atomic<std::int64_t> heap_allocations = 0;

}  // namespace concord

void* operator new(std::size_t size) {
  concord::heap_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  concord::heap_allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(size == 0 ? 1 : size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
