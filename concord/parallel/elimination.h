// Elimination: the cheapest choice of one option for each of many variables, where costs depend on
// a few variables each. Exact, by eliminating variable after variable (Bertele and Brioschi 1972;
// Dechter 1999, "Bucket elimination"): the time grows with the largest set of variables that an
// elimination ties together, which in the graphs of neural networks is small (Jia et al. 2018,
// "Exploring hidden dimensions", do the same for chains).
//
// Where a set would become too large, the variable that ties most together is given the option that
// looks cheapest by itself, and the rest goes on exactly.
#pragma once

#include <cstddef>
#include <vector>

namespace concord::parallel {

// A cost for each combination of options of some variables: the last variable's option runs
// fastest.
struct Factor {
  std::vector<int> variables;  // no two the same
  std::vector<double> costs;
};

class Elimination {
 public:
  // A variable with so many options, at least one; returns its number.
  int add_variable(std::size_t options);
  std::size_t options(int variable) const { return options_[static_cast<std::size_t>(variable)]; }
  void add(Factor factor);
  // costs[o]: of option o of one variable.
  void add(int variable, std::vector<double> costs) { add({{variable}, std::move(costs)}); }

  struct Solution {
    std::vector<std::size_t> options;  // by variable
    double cost = 0;
    bool is_exact = true;
  };
  // `largest`: of the tables of costs, in entries. Of options that cost the same the first is
  // taken. Uses up what was added.
  Solution solve(std::size_t largest = std::size_t{1} << 22);

 private:
  std::vector<std::size_t> options_;
  std::vector<Factor> factors_;
};

}  // namespace concord::parallel
