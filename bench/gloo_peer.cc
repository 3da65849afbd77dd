// Times Gloo's all-reduce of f32 numbers over TCP on the loopback interface, as mpi_peer.cc does
// MPI's:
//
//   gloo_peer RANK RANKS FOLDER BYTES...       one process for each rank; FOLDER is empty at first
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

using Reduce = void (*)(void*, const void*, const void*, size_t);

void all_reduce(const std::shared_ptr<gloo::Context>& ranks, std::vector<double>& values,
                Reduce reduce) {
  gloo::AllreduceOptions options(ranks);
  options.setOutput(values.data(), values.size());
  options.setReduceFunction(reduce);
  gloo::allreduce(options);
}

}  // namespace

int main(int argc, char** argv) {
  const int rank = std::atoi(argv[1]), size = std::atoi(argv[2]);
  gloo::rendezvous::FileStore store(argv[3]);
  auto device = gloo::transport::tcp::CreateDevice("127.0.0.1");
  auto ranks = std::make_shared<gloo::rendezvous::Context>(rank, size);
  ranks->connectFullMesh(store, device);
  for (int a = 4; a < argc; ++a) {
    const std::size_t count = std::strtoull(argv[a], nullptr, 10) / sizeof(float);
    std::vector<float> in(count, 1.0f), out(count);
    gloo::AllreduceOptions options(ranks);
    options.setInput(in.data(), count);
    options.setOutput(out.data(), count);
    options.setReduceFunction(static_cast<Reduce>(&gloo::sum<float>));
    gloo::BarrierOptions barrier(ranks);
    const auto once = [&] {
      gloo::barrier(barrier);
      const double start = now();
      gloo::allreduce(options);
      return now() - start;
    };
    std::vector<double> first(1);
    for (int i = 0; i < 5; ++i) first[0] = once();
    all_reduce(ranks, first, static_cast<Reduce>(&gloo::max<double>));
    std::vector<double> seconds(
        static_cast<std::size_t>(std::clamp(static_cast<int>(1 / first[0]), 5, 100000)));
    for (double& each : seconds) each = once();
    all_reduce(ranks, seconds, static_cast<Reduce>(&gloo::max<double>));
    if (out[0] != static_cast<float>(size)) return 1;
    std::sort(seconds.begin(), seconds.end());
    if (rank == 0) {
      std::printf("{\"bytes\": %zu, \"seconds\": %.9g}\n", count * sizeof(float),
                  seconds[seconds.size() / 2]);
    }
  }
}
