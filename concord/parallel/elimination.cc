#include "concord/parallel/elimination.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <utility>

#include "concord/base/error.h"

namespace concord::parallel {
namespace {

std::size_t index(int variable) { return static_cast<std::size_t>(variable); }

// What an eliminated variable takes, given the options of the variables it was tied to.
struct Step {
  int variable;
  std::vector<int> given;
  std::vector<std::uint32_t> best;  // by combination of these
};

class Solver {
 public:
  Solver(const std::vector<std::size_t>& options, std::vector<Factor> factors, std::size_t largest)
      : options_(options), factors_(std::move(factors)), of_(options.size()), largest_(largest) {
    for (std::size_t f = 0; f < factors_.size(); ++f) register_factor(f);
  }

  Elimination::Solution run() {
    size_of_.resize(options_.size());
    for (std::size_t v = 0; v < options_.size(); ++v) enqueue(static_cast<int>(v));
    while (!queue_.empty()) {
      const auto [size, cheapest] = *queue_.begin();
      const int variable = size > largest_ ? most_tied() : cheapest;
      const std::vector<int> tied = neighbours(variable);
      queue_.erase({size_of_[index(variable)], variable});
      if (size > largest_) {
        fix(variable);
      } else {
        eliminate(variable);
      }
      for (const int neighbour : tied) {
        queue_.erase({size_of_[index(neighbour)], neighbour});
        enqueue(neighbour);
      }
    }
    return choose();
  }

 private:
  void register_factor(std::size_t f) {
    for (const int variable : factors_[f].variables) of_[index(variable)].insert(f);
  }

  std::vector<int> neighbours(int variable) const {
    std::set<int> found;
    for (const std::size_t f : of_[index(variable)]) {
      found.insert(factors_[f].variables.begin(), factors_[f].variables.end());
    }
    found.erase(variable);
    return {found.begin(), found.end()};
  }

  // Entries of what eliminating the variable leaves behind.
  std::size_t table_size(int variable) const {
    std::size_t size = 1;
    for (const int neighbour : neighbours(variable)) {
      size *= options_[index(neighbour)];
      if (size > largest_) break;
    }
    return size;
  }

  void enqueue(int variable) {
    size_of_[index(variable)] = table_size(variable);
    queue_.insert({size_of_[index(variable)], variable});
  }

  int most_tied() const {
    return std::ranges::max_element(
               queue_, {}, [&](const auto& entry) { return neighbours(entry.second).size(); })
        ->second;
  }

  // Walks through all combinations of options of `variables`; calls body(combination).
  template <typename Body>
  void for_each_combination(const std::vector<int>& variables, Body body) {
    std::ranges::fill(now_, 0);
    while (true) {
      body();
      std::size_t v = variables.size();
      while (v > 0 && ++now_[index(variables[v - 1])] == options_[index(variables[v - 1])]) {
        now_[index(variables[v - 1])] = 0;
        --v;
      }
      if (v == 0) return;
    }
  }

  double cost_now(const Factor& factor) const {
    std::size_t at = 0;
    for (const int variable : factor.variables) {
      at = at * options_[index(variable)] + now_[index(variable)];
    }
    return factor.costs[at];
  }

  // A factor's costs where the variables walked through have the options they have now.
  struct Cursor {
    const double* costs;
    std::size_t at = 0;
    std::size_t stride = 0;            // from one option of the variable eliminated to the next
    std::vector<std::size_t> strides;  // the same of each variable walked through
  };

  Cursor cursor(const Factor& factor, int variable, const std::vector<int>& walked) const {
    Cursor cursor{factor.costs.data(), 0, 0, std::vector<std::size_t>(walked.size(), 0)};
    std::size_t stride = 1;
    for (std::size_t v = factor.variables.size(); v-- > 0;) {
      const int of = factor.variables[v];
      if (of == variable) {
        cursor.stride = stride;
      } else {
        const auto place = std::ranges::find(walked, of) - walked.begin();
        cursor.strides[static_cast<std::size_t>(place)] = stride;
      }
      stride *= options_[index(of)];
    }
    return cursor;
  }

  // Goes on to the next combination, the last variable's option first; false after the last one.
  bool advance(const std::vector<int>& walked, std::vector<std::size_t>& now,
               std::vector<Cursor>& cursors) const {
    for (std::size_t v = walked.size(); v-- > 0;) {
      const bool wraps = ++now[v] == options_[index(walked[v])];
      const std::size_t back = wraps ? now[v] : 0;
      for (Cursor& c : cursors) c.at += c.strides[v] - back * c.strides[v];
      if (!wraps) return true;
      now[v] = 0;
    }
    return false;
  }

  void eliminate(int variable) {
    const std::vector<int> given = neighbours(variable);
    const std::set<std::size_t> used = of_[index(variable)];
    std::vector<Cursor> cursors;
    for (const std::size_t f : used) cursors.push_back(cursor(factors_[f], variable, given));
    Step step{variable, given, {}};
    Factor left{given, {}};
    std::vector<std::size_t> now(given.size(), 0);
    std::vector<double> costs(options_[index(variable)]);
    do {
      std::ranges::fill(costs, 0);
      for (const Cursor& c : cursors) {
        for (std::size_t option = 0; option < costs.size(); ++option) {
          costs[option] += c.costs[c.at + option * c.stride];
        }
      }
      // Where every option costs infinitely much, the first.
      const auto best = std::ranges::min_element(costs);
      step.best.push_back(static_cast<std::uint32_t>(best - costs.begin()));
      left.costs.push_back(*best);
    } while (advance(given, now, cursors));
    remove(used);
    steps_.push_back(std::move(step));
    if (given.empty()) {
      cost_ += left.costs[0];
    } else {
      factors_.push_back(std::move(left));
      register_factor(factors_.size() - 1);
    }
  }

  void remove(const std::set<std::size_t>& factors) {
    for (const std::size_t f : factors) {
      for (const int variable : factors_[f].variables) of_[index(variable)].erase(f);
      factors_[f].costs = {};
    }
  }

  // Takes the option with the least sum of what each factor costs at best.
  void fix(int variable) {
    now_.resize(options_.size());
    is_exact_ = false;
    std::vector<double> bounds(options_[index(variable)], 0);
    for (const std::size_t f : of_[index(variable)]) {
      std::vector<double> least(bounds.size(), std::numeric_limits<double>::infinity());
      for_each_combination(factors_[f].variables, [&] {
        double& bound = least[now_[index(variable)]];
        bound = std::min(bound, cost_now(factors_[f]));
      });
      for (std::size_t option = 0; option < bounds.size(); ++option)
        bounds[option] += least[option];
    }
    const auto best = static_cast<std::size_t>(std::ranges::min_element(bounds) - bounds.begin());
    steps_.push_back({variable, {}, {static_cast<std::uint32_t>(best)}});
    for (const std::size_t f : std::set(of_[index(variable)])) restrict(f, variable, best);
    of_[index(variable)].clear();
  }

  void restrict(std::size_t f, int variable, std::size_t option) {
    Factor rest;
    for (const int other : factors_[f].variables) {
      if (other != variable) rest.variables.push_back(other);
    }
    for_each_combination(rest.variables, [&] {
      now_[index(variable)] = option;
      rest.costs.push_back(cost_now(factors_[f]));
      now_[index(variable)] = 0;
    });
    remove({f});
    if (rest.variables.empty()) {
      cost_ += rest.costs[0];
      return;
    }
    factors_.push_back(std::move(rest));
    register_factor(factors_.size() - 1);
  }

  Elimination::Solution choose() {
    Elimination::Solution solution{std::vector<std::size_t>(options_.size(), 0), cost_, is_exact_};
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
      std::size_t at = 0;
      for (const int variable : step->given) {
        at = at * options_[index(variable)] + solution.options[index(variable)];
      }
      solution.options[index(step->variable)] = step->best[at];
    }
    return solution;
  }

  const std::vector<std::size_t>& options_;
  std::vector<Factor> factors_;
  std::vector<std::set<std::size_t>> of_;  // factors, by variable
  std::size_t largest_;
  std::set<std::pair<std::size_t, int>> queue_;  // variables left, by table_size()
  std::vector<std::size_t> size_of_;             // by variable: where it stands in the queue
  std::vector<std::size_t> now_;  // options, by variable, of the combination looked at
  std::vector<Step> steps_;
  double cost_ = 0;
  bool is_exact_ = true;
};

}  // namespace

int Elimination::add_variable(std::size_t options) {
  CONCORD_CHECK(options >= 1);
  options_.push_back(options);
  return static_cast<int>(options_.size() - 1);
}

void Elimination::add(Factor factor) {
  std::size_t size = 1;
  for (const int variable : factor.variables) size *= options(variable);
  CONCORD_CHECK(factor.costs.size() == size && !factor.variables.empty());
  factors_.push_back(std::move(factor));
}

Elimination::Solution Elimination::solve(std::size_t largest) {
  return Solver(options_, std::move(factors_), largest).run();
}

}  // namespace concord::parallel
