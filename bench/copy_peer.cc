// Times how long the ranks take to copy a buffer each with memcpy, all at once, as mpi_peer.cc
// times an all-reduce.
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  for (int a = 1; a < argc; ++a) {
    const std::size_t bytes = std::strtoull(argv[a], nullptr, 10);
    std::vector<char> in(bytes, 1), out(bytes, 0);
    const auto once = [&] {
      MPI_Barrier(MPI_COMM_WORLD);
      const double start = MPI_Wtime();
      std::memcpy(out.data(), in.data(), bytes);
      return MPI_Wtime() - start;
    };
    double first = 0;
    for (int i = 0; i < 5; ++i) first = once();
    MPI_Bcast(&first, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    const int repetitions = std::clamp(static_cast<int>(1 / first), 5, 100000);
    std::vector<double> own, slowest(static_cast<std::size_t>(repetitions));
    for (int i = 0; i < repetitions; ++i) own.push_back(once());
    MPI_Reduce(own.data(), slowest.data(), repetitions, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (out[bytes / 2] != 1) return 1;
    std::sort(slowest.begin(), slowest.end());
    if (rank == 0) {
      std::printf("{\"bytes\": %zu, \"seconds\": %.9g}\n", bytes, slowest[slowest.size() / 2]);
    }
  }
  MPI_Finalize();
}
