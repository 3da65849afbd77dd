// A network that is not well, for tests: preloaded (LD_PRELOAD) into a process, it stands between
// that and the system's calls. CONCORD_FAULTS says what is wrong:
//   short     every read and write on TCP moves a few bytes at most
//   delay     each of them, and each wait or wake in shared memory, is late now and then
//   reset     rank 1 breaks a connection that carries gradients (Gloo and Open MPI write these by
//             writev) after a while: the other end sees a reset
// Where CONCORD_FAULTS_PORT names a port, only connections are touched one end of which has one of
// the hundred ports from there on.
// A process that ends by itself adds a line to the file CONCORD_FAULTS_DONE: how many faults it
// had.
#include <dlfcn.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace {

constexpr unsigned kResetAfter = 400;  // writes
constexpr int kPorts = 100;

std::atomic<unsigned> faults = 0;

__attribute__((destructor)) void tell() {
  const char* const path = std::getenv("CONCORD_FAULTS_DONE");
  std::FILE* const file = path == nullptr ? nullptr : std::fopen(path, "a");
  if (file == nullptr) return;
  std::fprintf(file, "%u\n", faults.load());
  std::fclose(file);
}

bool is_asked_for(std::string_view what) {
  const char* const asked = std::getenv("CONCORD_FAULTS");
  return asked != nullptr && what == asked;
}

// Of no good quality, and the same in every run of a thread.
std::uint32_t random_number() {
  static thread_local std::uint32_t state = 12345;
  state = state * 1664525 + 1013904223;
  return state >> 8;
}

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Of one end of a connection; 0 where there is none.
int port_of(int descriptor, decltype(getsockname)* name) {
  sockaddr_in6 address{};  // which has its port where sockaddr_in has it
  socklen_t size = sizeof address;
  if (name(descriptor, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  const bool is_ip = address.sin6_family == AF_INET || address.sin6_family == AF_INET6;
  return is_ip ? ntohs(address.sin6_port) : 0;
}

bool is_touched(int descriptor) {
  static const int first = [] {
    const char* const port = std::getenv("CONCORD_FAULTS_PORT");
    return port == nullptr ? 0 : std::atoi(port);
  }();
  const int before = errno;
  const int own = port_of(descriptor, getsockname), other = port_of(descriptor, getpeername);
  errno = before;
  const auto is_named = [](int port) { return port >= first && port < first + kPorts; };
  return own != 0 && (first == 0 || is_named(own) || is_named(other));
}

void be_late() {
  static const bool is_late = is_asked_for("delay");
  if (!is_late || random_number() % 8 != 0) return;
  ++faults;
  usleep(random_number() % 3000);
}

std::size_t shortened(int descriptor, std::size_t bytes) {
  static const bool is_short = is_asked_for("short");
  if (!is_touched(descriptor)) return bytes;
  be_late();
  if (!is_short || bytes <= 1) return bytes;
  ++faults;
  return 1 + random_number() % (bytes < 600 ? bytes : 600);
}

// The first piece of several that is not empty, and as much of it as passes.
iovec shortened(int descriptor, const iovec* pieces, int count) {
  int i = 0;
  while (i + 1 < count && pieces[i].iov_len == 0) ++i;
  return {pieces[i].iov_base, shortened(descriptor, pieces[i].iov_len)};
}

bool breaks(int descriptor) {
  static const bool is_breaking = [] {
    const auto is_one = [](const char* variable) {
      const char* const rank = std::getenv(variable);
      return rank != nullptr && std::string_view(rank) == "1";
    };
    return is_asked_for("reset") && (is_one("CONCORD_RANK") || is_one("OMPI_COMM_WORLD_RANK"));
  }();
  static std::atomic<unsigned> writes = 0;
  if (!is_breaking || !is_touched(descriptor) || ++writes != kResetAfter) return false;
  ++faults;
  sockaddr nowhere{};
  nowhere.sa_family = AF_UNSPEC;  // which ends a connection by a reset
  connect(descriptor, &nowhere, sizeof nowhere);
  errno = ECONNRESET;
  return true;
}

}  // namespace

extern "C" {

ssize_t read(int descriptor, void* bytes, std::size_t count) {
  static auto* const real = next<decltype(read)>("read");
  return real(descriptor, bytes, shortened(descriptor, count));
}
ssize_t write(int descriptor, const void* bytes, std::size_t count) {
  static auto* const real = next<decltype(write)>("write");
  return real(descriptor, bytes, shortened(descriptor, count));
}
ssize_t recv(int descriptor, void* bytes, std::size_t count, int flags) {
  static auto* const real = next<decltype(recv)>("recv");
  return real(descriptor, bytes, shortened(descriptor, count), flags);
}
ssize_t send(int descriptor, const void* bytes, std::size_t count, int flags) {
  static auto* const real = next<decltype(send)>("send");
  return real(descriptor, bytes, shortened(descriptor, count), flags);
}
ssize_t readv(int descriptor, const iovec* pieces, int count) {
  static auto* const real = next<decltype(readv)>("readv");
  if (!is_touched(descriptor) || !is_asked_for("short"))
    return be_late(), real(descriptor, pieces, count);
  const iovec piece = shortened(descriptor, pieces, count);
  return real(descriptor, &piece, 1);
}
ssize_t writev(int descriptor, const iovec* pieces, int count) {
  static auto* const real = next<decltype(writev)>("writev");
  if (breaks(descriptor)) return -1;
  if (!is_touched(descriptor) || !is_asked_for("short"))
    return be_late(), real(descriptor, pieces, count);
  const iovec piece = shortened(descriptor, pieces, count);
  return real(descriptor, &piece, 1);
}

long syscall(long number, ...) {
  static auto* const real = next<decltype(syscall)>("syscall");
  va_list list;
  va_start(list, number);
  long arguments[6];
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  if (number == SYS_futex) be_late();
  return real(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
              arguments[5]);
}

}  // extern "C"
