// Local training: each rank takes steps of its own, on its own samples, and from time to time all
// go on from the mean of their weights.
//
//   local   θ = mean of θ_i, every H steps (local SGD: Stich 2019; McMahan et al. 2017). With a
//           momentum β over these periods (SlowMo: Wang et al. 2020, algorithm 1), where θ_0 is
//           what the period began with and n the learning rate of its last step:
//             u <- β u + (θ_0 - mean) / n         θ <- θ_0 - α n u
//   diloco  Nesterov's momentum over the periods (DiLoCo: Douillard et al. 2023, algorithm 1):
//             d = θ_0 - mean    u <- β u + d      θ <- θ_0 - α (d + β u)
//
// The optimizers' states and the running statistics become their means too, so that all ranks agree
// after each period and a checkpoint of one holds everything.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "concord/comm/communicator.h"
#include "concord/runtime/state_store.h"
#include "concord/tensor/buffer.h"

namespace concord::train {

struct LocalSyncOptions {
  enum class Outer { kMean, kNesterov };
  Outer outer = Outer::kMean;
  double learning_rate = 1;  // α
  double momentum = 0;       // β
};

class LocalSync {
 public:
  // The states and ranks outlive it; begin() comes before the first run().
  LocalSync(StateStore& states, comm::Communicator& ranks, const LocalSyncOptions& options);

  // A period begins with the states as they are.
  void begin();
  // Collective: the period ends, and another begins. `learning_rate`: n.
  void run(double learning_rate);

  // What must be kept beside the states, of one parameter: u.
  static constexpr std::string_view kSuffix = ".outer_momentum";
  bool has_momentum() const { return options_.momentum != 0; }
  std::span<float> momentum_of(const StateStore::Entry& parameter);

 private:
  StateStore& states_;
  comm::Communicator& ranks_;
  LocalSyncOptions options_;
  // As large as the states, of which only parameters are used.
  std::vector<float> before_, momentum_;
};

}  // namespace concord::train
