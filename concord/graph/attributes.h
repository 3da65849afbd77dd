// Attributes: the constants of a node, by name (strides, an epsilon, ...). Few per node, so a
// sorted list; order of insertion does not matter. Reading an attribute that is missing or of
// another type is a broken invariant: builders in ops/ set every attribute of their op.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace concord {

using Attribute = std::variant<std::int64_t, double, std::string, std::vector<std::int64_t>>;

class Attributes {
 public:
  Attributes() = default;
  Attributes(std::initializer_list<std::pair<std::string, Attribute>> list) {
    for (const auto& [name, value] : list) set(name, value);
  }

  bool has(std::string_view name) const { return find(name) != nullptr; }
  void set(std::string_view name, Attribute value);

  std::int64_t integer(std::string_view name) const { return get<std::int64_t>(name); }
  double real(std::string_view name) const { return get<double>(name); }
  const std::string& text(std::string_view name) const { return get<std::string>(name); }
  const std::vector<std::int64_t>& integers(std::string_view name) const {
    return get<std::vector<std::int64_t>>(name);
  }

  auto begin() const { return list_.begin(); }
  auto end() const { return list_.end(); }
  bool empty() const { return list_.empty(); }
  friend bool operator==(const Attributes&, const Attributes&) = default;

 private:
  const Attribute* find(std::string_view name) const;
  template <typename T>
  const T& get(std::string_view name) const;

  std::vector<std::pair<std::string, Attribute>> list_;  // sorted by name
};

extern template const std::int64_t& Attributes::get<std::int64_t>(std::string_view) const;
extern template const double& Attributes::get<double>(std::string_view) const;
extern template const std::string& Attributes::get<std::string>(std::string_view) const;
extern template const std::vector<std::int64_t>& Attributes::get<std::vector<std::int64_t>>(
    std::string_view) const;

}  // namespace concord
