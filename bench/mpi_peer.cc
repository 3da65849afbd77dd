// Times what processes started by mpirun do together, as `concord bench collective` times its own:
// for each size given in bytes, a line of JSON with the median over repetitions of the slowest
// rank's seconds.
//
//   mpirun -np 2 mpi_peer all_reduce 4096 1048576     MPI_Allreduce of f32 numbers
//   mpirun -np 2 mpi_peer copy 4096 1048576           each copies a buffer with memcpy, all at once
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const bool copies = argc > 1 && std::string(argv[1]) == "copy";
  for (int a = 2; a < argc; ++a) {
    const std::size_t count = std::strtoull(argv[a], nullptr, 10) / sizeof(float);
    std::vector<float> in(count, 1.0f), out(count);
    const auto once = [&] {
      MPI_Barrier(MPI_COMM_WORLD);
      const double start = MPI_Wtime();
      if (copies) {
        std::memcpy(out.data(), in.data(), count * sizeof(float));
      } else {
        MPI_Allreduce(in.data(), out.data(), static_cast<int>(count), MPI_FLOAT, MPI_SUM,
                      MPI_COMM_WORLD);
      }
      return MPI_Wtime() - start;
    };
    double first = 0;
    for (int i = 0; i < 5; ++i) first = once();
    MPI_Bcast(&first, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    const int repetitions = std::clamp(static_cast<int>(1 / first), 5, 100000);
    std::vector<double> own, slowest(static_cast<std::size_t>(repetitions));
    for (int i = 0; i < repetitions; ++i) own.push_back(once());
    MPI_Reduce(own.data(), slowest.data(), repetitions, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (out[0] != static_cast<float>(copies ? 1 : size)) return 1;
    std::sort(slowest.begin(), slowest.end());
    if (rank == 0) {
      std::printf("{\"bytes\": %zu, \"seconds\": %.9g}\n", count * sizeof(float),
                  slowest[slowest.size() / 2]);
    }
  }
  MPI_Finalize();
}
