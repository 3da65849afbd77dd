#include "concord/runtime/program.h"

#include <fmt/format.h>

#include "concord/graph/printer.h"

namespace concord {
namespace {

std::string to_string(const Address& address) {
  constexpr const char* kNames[kRegions] = {
      "states", "common",   "offloaded", "versions",        "sums",
      "parts",  "prologue", "arena",     "offloaded_arena", "carried"};
  const std::string part = address.part == 0 ? "" : fmt::format("{}", address.part);
  return fmt::format("{}{}+{}", kNames[static_cast<std::size_t>(address.region)], part,
                     address.offset);
}

void print(const Program& program, const char* phase, const std::vector<ProgramStep>& steps,
           std::string& text) {
  for (const ProgramStep& step : steps) {
    std::string addresses;
    for (const Address& address : step.operands) {
      addresses += fmt::format("{}{}", addresses.empty() ? "" : " ", to_string(address));
    }
    const std::string what = step.node == kNoNode
                                 ? fmt::format("copy  # {}", step.layer)
                                 : concord::to_string(program.graph, program.graph.node(step.node));
    text += fmt::format("{:<10} {}  [{}] {} bytes, {:.0f} flops\n", phase, what, addresses,
                        step.bytes, step.flops);
  }
}

}  // namespace

const Binding* find_binding(const std::vector<Binding>& bindings, std::string_view name) {
  for (const Binding& binding : bindings) {
    if (binding.name == name) return &binding;
  }
  return nullptr;
}

std::string to_string(const Program& program) {
  std::string text;
  print(program, "prologue", program.prologue, text);
  print(program, "microbatch", program.microbatch, text);
  print(program, "update", program.update, text);
  return text;
}

}  // namespace concord
