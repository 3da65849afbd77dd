// The printer: a graph as text, one line for each input, state, node and output.
//
//   graph      := line*
//   line       := "input" value ":" type [ "per-step" ]
//               | "state" value ":" type [ "->" ref ]
//               | ref { "," ref } "=" op "(" [ ref { ", " ref } ] ")" [ attributes ] ":" type { ","
//               type } [ "# " layer ] | "output" name "=" ref
//   value      := ref " " quoted-name
//   ref        := "%" integer
//   type       := dtype "[" integers "]" [ "@" layout ]        -- the layout where it is not
//   row-major attributes := "{" name "=" constant { ", " name "=" constant } "}"
#pragma once

#include <string>

#include "concord/graph/graph.h"

namespace concord {

std::string to_string(const Graph& graph);
std::string to_string(const Graph& graph, const Node& node);
std::string to_string(const Attributes& attributes);

}  // namespace concord
